"""What the page says about measurements, in words and in order."""

from typing import Any

import pytest
from modelmerger import Finding, ValidationReport
from modelmerger_plugins.report_page.measured import limits, metrics, number

from tests.plugins.report_page import merges


def report_of(findings: list[Finding]) -> ValidationReport:
    return ValidationReport(directory="/m", validators={}, settings={}, findings=findings, samples=[])


def of_models(better: Any, *values: float | None) -> list[Finding]:
    names = ("merged", "a", "b", "c")
    return [
        Finding(metric="m", value=v, evidence="", model=n, better=better) for n, v in zip(names, values, strict=False)
    ]


@pytest.mark.parametrize(
    ("better", "values", "best", "verdict"),
    [
        ("lower", (1.0, 2.0, 3.0), [True, False, False], "better than all 2 sources"),
        ("lower", (3.0, 2.0, 1.0), [False, False, True], "worse than all 2 sources"),
        ("higher", (3.0, 2.0, 1.0), [True, False, False], "better than all 2 sources"),
        ("higher", (1.5, 2.0, 1.0), [False, True, False], "better than 1 of 2"),
        ("higher", (1.0, 2.0, 1.0), [False, True, False], "worse than 1 of 2"),
        ("higher", (2.0, 2.0, 1.0), [True, True, False], "better than 1 of 2"),
        ("lower", (2.0, 2.0, 2.0), [False, False, False], "equal to all 2 sources"),
        ("lower", (1.0, 2.0), [True, False], "better than its source"),
        ("lower", (1.0, None, 2.0), [True, False, False], "better than its source"),
        ("lower", (None, 1.0, 2.0), [False, True, False], ""),
        ("lower", (1.0,), [False], ""),
        (None, (1.0, 2.0), [False, False], ""),
    ],
)
def test_the_best_is_marked_and_the_merged_model_is_put_beside_its_sources(
    better: Any, values: tuple[float | None, ...], best: list[bool], verdict: str
) -> None:
    (row,) = metrics(report_of(of_models(better, *values)))
    assert [cell.best for cell in row.cells if cell] == best
    assert row.verdict == verdict


def test_numbers_of_a_metric_have_as_many_decimals_as_the_largest_needs() -> None:
    (row,) = metrics(report_of(of_models("lower", 9.5, 22.41, None, 0.125)))
    assert [cell.text for cell in row.cells if cell] == ["9.50", "22.41", "", "0.12"]
    (wide,) = metrics(report_of(of_models("lower", 1e-5, 1e9)))
    assert [cell.text for cell in wide.cells if cell] == ["1e−05", "1e+09"]
    assert number(-0.25) == "−0.25"


def test_varieties_stand_under_their_metric_and_models_that_lack_one_have_an_empty_cell() -> None:
    rows = metrics(merges.report())
    assert [row.name for row in rows] == list(merges.VALUES)
    assert [part.name for part in rows[0].parts] == list(merges.VARIETIES)
    assert rows[0].unit == "per token"
    findings = [
        *of_models("lower", 1.0, 2.0),
        Finding(metric="m", value=3.0, evidence="", model="a", label="gulf", better="lower"),
    ]
    (row,) = metrics(report_of(findings))
    assert [cell.text if cell else None for cell in row.parts[0].cells] == [None, "3.000"]


def test_crossed_thresholds_come_first_and_say_why_a_number_is_missing() -> None:
    held = Finding(metric="held", value=0.5, evidence="", better="higher", threshold=0.4)
    crossed = Finding(metric="crossed", value=31.2, evidence="", better="lower", threshold=20, crossed=True)
    missing = Finding(metric="missing", value=None, evidence="no text", better="lower", threshold=1, crossed=True)
    free = Finding(metric="free", value=1.0, evidence="")
    found = limits(report_of([held, crossed, free, missing]))
    assert [(limit.metric, limit.sign, limit.threshold, limit.reason) for limit in found] == [
        ("crossed", "at most", "20", ""),
        ("missing", "at most", "1", "no text"),
        ("held", "at least", "0.4", ""),
    ]
