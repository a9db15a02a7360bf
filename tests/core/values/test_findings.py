"""Thresholds, and the report of a validation for people and machines."""

import json

import pytest
from modelmerger import Finding, Sample, ValidationReport
from modelmerger.values.findings import Better, crossing, judged


def finding(value: float | None, metric: str = "perplexity", model: str = "merged", label: str = "") -> Finding:
    return Finding(metric=metric, value=value, evidence="4 texts", unit="per token", model=model, label=label)


@pytest.mark.parametrize(
    ("value", "better", "crossed"),
    [
        *[(19, "lower", False), (20, "lower", False), (21, "lower", True), (19, "higher", True), (20, "higher", False)],
        *[(None, "lower", True), (float("nan"), "lower", True), (float("nan"), "higher", True)],
    ],
)
def test_a_threshold_is_the_worst_acceptable_value(value: float | None, better: Better, crossed: bool) -> None:
    found = judged(finding(value), 20, better)
    assert (found.threshold, found.crossed) == (20, crossed)
    assert not judged(finding(value), None, better).crossed


def test_a_crossing_says_both_values() -> None:
    assert crossing(judged(finding(31.2), 20, "lower")) == "perplexity is 31.2, worse than 20"
    assert "could not be measured (4 texts), and its threshold is 20" in crossing(judged(finding(None), 20, "lower"))


def test_the_report_prints_models_side_by_side_and_isolates_arabic() -> None:
    parts = [finding(31.2), finding(40, label="gulf"), finding(35, model="chat"), finding(None, "fluency")]
    samples = [Sample(prompt="شلونك؟", answer="زين \x1b[31m\u202e", label="gulf", answered_label="msa", model="merged")]
    report = ValidationReport(
        directory="merged",
        validators={},
        settings={},
        findings=[judged(parts[0], 20, "lower"), *parts[1:]],
        samples=samples,
    )
    text = str(report)
    assert not report.passed
    assert text.splitlines()[0] == "validation of merged: 1 crossed: perplexity is 31.2, worse than 20"
    rows = [line.split() for line in text.splitlines()]
    assert ["metric", "label", "merged", "chat", "unit"] in rows
    assert ["perplexity", "all", "31.2", "✗", "35", "per", "token"] in rows
    assert ["perplexity", "gulf", "40", "per", "token"] in rows
    assert "fluency of merged: not measured: 4 texts" in text
    assert "  perplexity in gulf: 4 texts" in text
    assert "(gulf): \u2068شلونك؟\u2069 → \u2068زين \\x1b[31m\\u202e\u2069 (msa)" in text
    assert "of chat" not in text
    data = json.loads(json.dumps(report.as_dict()))
    assert data["passed"] is False
    assert data["metrics"] == {"perplexity": 31.2, "fluency": None}
    assert data["samples"][0]["answered_label"] == "msa"


def test_examples_are_of_the_merged_model_and_of_each_label_in_turn() -> None:
    asked = [("e1", "egyptian"), ("e2", "egyptian"), ("e3", "egyptian"), ("g1", "gulf"), ("g2", "gulf")]
    own = [Sample(prompt=prompt, answer="", label=label, model="merged") for prompt, label in asked]
    others = [Sample(prompt="x", answer="", model="chat")]
    report = ValidationReport(
        directory="merged", validators={}, settings={}, findings=[finding(1)], samples=[*others, *own]
    )
    assert [sample.prompt for sample in report.examples(4)] == ["e1", "g1", "e2", "g2"]


def test_the_rows_of_a_metric_stand_together() -> None:
    parts = [finding(1), finding(2, "bits"), finding(3, label="gulf"), finding(4, "bits", label="gulf")]
    report = ValidationReport(directory="merged", validators={}, settings={}, findings=parts, samples=[])
    assert [row[:3] for row in report.rows()[1:]] == [
        ["perplexity", "all", "1"],
        ["perplexity", "gulf", "3"],
        ["bits", "all", "2"],
        ["bits", "gulf", "4"],
    ]


@pytest.mark.parametrize(
    ("threshold", "passed", "verdict"),
    [(None, None, "no threshold set"), (40, True, "passed"), (20, False, "1 crossed: ")],
)
def test_nothing_passes_where_no_threshold_was_set(threshold: float | None, passed: bool | None, verdict: str) -> None:
    found = [judged(finding(31.2), threshold, "lower")]
    report = ValidationReport(directory="merged", validators={}, settings={}, findings=found, samples=[])
    assert report.passed is (passed is not False)
    assert report.has_thresholds is (passed is not None)
    assert report.as_dict()["passed"] is passed
    assert str(report).startswith(f"validation of merged: {verdict}")
