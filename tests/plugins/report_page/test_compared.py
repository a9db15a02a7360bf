"""Merges side by side: which is best, which cannot be compared and why, as text, JSON and page."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger_plugins.report_page.compared import axes_of, compare_merges
from modelmerger_plugins.report_page.compared_page import render

from tests.plugins.report_page import merges

VALUES = {"low": (12.5, 0.5), "middle": (14.0, 0.75), "high": (15.5, 0.9)}
"""Perplexity, of which less is better, and dialect_match, of which more is."""

Command = Callable[..., SimpleNamespace]


def finding(metric: str, value: float | None, label: str = "", model: str = "merged", **changed: Any) -> dict[str, Any]:
    better = "lower" if metric == "perplexity" else "higher"
    evidence = "10 texts, 700 tokens, 2,100 bytes of the set" if metric == "perplexity" else "12 answers"
    return {"metric": metric, "value": value, "evidence": evidence, "unit": "", "label": label, "model": model,
            "better": better, "threshold": None, "crossed": False} | changed  # fmt: skip


def write(directory: Path, perplexity: float | None, match: float | None, **changed: Any) -> str:
    """A directory with the files of a validated merge."""
    directory.mkdir(parents=True)
    report = {
        "schema": 1,
        "directory": str(directory),
        "passed": None,
        "validators": {"perplexity": "modelmerger 0.1.0", "dialect_prompts": "modelmerger 0.1.0"},
        "settings": {"seed": 0, "dataset": None, "thresholds": {"perplexity": 20}, "test_batch_size": 8},
        "metrics": {},
        "findings": [
            finding("perplexity", perplexity),
            finding("perplexity", None if perplexity is None else perplexity + 1, "gulf"),
            finding("dialect_match", match),
            finding("perplexity", 1.0, model="a source"),
        ],
        "samples": [{"prompt": "إزيك؟", "answer": directory.name, "label": "egyptian", "model": "merged"}],
    } | changed
    (directory / "validation.json").write_text(json.dumps(report))
    manifest = {"config": {"strategy": "ties"}, "sources": [{"name": "a", "files": [1]}, {"name": "b", "files": [2]}]}
    (directory / "modelmerger.json").write_text(json.dumps(manifest))
    return str(directory)


@pytest.fixture
def directories(tmp_path: Path) -> list[str]:
    return [write(tmp_path / name, *values) for name, values in VALUES.items()]


def settings(**changed: Any) -> dict[str, Any]:
    return {"seed": 0, "dataset": None, "thresholds": None, "test_batch_size": 4} | changed


def test_the_best_of_each_metric_and_label_is_marked_and_sources_do_not_count(directories: list[str]) -> None:
    found = compare_merges(directories).as_dict()
    assert [(m["name"], m["strategy"]) for m in found["merges"]] == [(name, "ties") for name in VALUES]
    rows = {(row["metric"], row["label"]): row for row in found["metrics"]}
    assert list(rows) == [("perplexity", ""), ("perplexity", "gulf"), ("dialect_match", "")]
    assert rows["perplexity", ""]["values"] == {"low": 12.5, "middle": 14.0, "high": 15.5}
    assert rows["perplexity", "gulf"]["values"] == {"low": 13.5, "middle": 15.0, "high": 16.5}
    assert [row["best"] for row in rows.values()] == [["low"], ["low"], ["high"]]
    assert found["not_comparable"] == found["notes"] == []


def test_equal_merges_have_no_best_and_what_is_missing_is_none(tmp_path: Path) -> None:
    found = compare_merges([write(tmp_path / "a", 3.0, None), write(tmp_path / "b", 3.0, 0.5)]).as_dict()
    rows = {(row["metric"], row["label"]): row for row in found["metrics"]}
    assert rows["perplexity", ""]["best"] == []
    assert rows["dialect_match", ""]["values"] == {"a": None, "b": 0.5}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"settings": settings(seed=7)}, "it was measured with seed: 7, and low with 0"),
        ({"settings": settings(dataset="./mine")}, "it was measured with dataset: ./mine, and low with None"),
        ({"samples": [{"prompt": "hello", "label": "", "model": "merged"}]}, "it was asked other prompts"),
        (
            {"validators": {"perplexity": "modelmerger 0.2.0"}},
            "perplexity was that of modelmerger 0.2.0, and that of low of modelmerger 0.1.0",
        ),
        (
            {"findings": [finding("perplexity", 1.0, evidence="10 texts, 700 tokens, 2,101 bytes of the set")]},
            "perplexity was measured on other texts (10 texts, 700 tokens, 2,101 bytes of the set)",
        ),
    ],
)
def test_what_was_measured_otherwise_is_named_and_takes_no_part(
    directories: list[str], tmp_path: Path, changed: dict[str, Any], reason: str
) -> None:
    other = write(tmp_path / "other", 1.0, 1.0, **changed)
    found = compare_merges([other, *directories]).as_dict()
    assert found["not_comparable"] == [{"name": "other", "reason": reason}]
    assert [merge["name"] for merge in found["merges"]] == list(VALUES)
    assert found["metrics"][0]["best"] == ["low"]


def test_settings_that_move_no_number_and_another_tokenizer_may_differ(directories: list[str], tmp_path: Path) -> None:
    evidence = "10 texts, 3,000 tokens, 2,100 bytes of the set"
    other = write(
        tmp_path / "other",
        1.0,
        1.0,
        settings=settings(metrics=["perplexity"]),
        findings=[finding("perplexity", 2.0, evidence=evidence)],
    )
    assert [merge.name for merge in compare_merges([*directories, other]).merges] == [*VALUES, "other"]


def test_merges_of_other_models_are_noted(directories: list[str], tmp_path: Path) -> None:
    other = write(tmp_path / "other", 1.0, 1.0)
    (tmp_path / "other/modelmerger.json").write_text(json.dumps({"sources": [{"name": "c", "files": [3]}]}))
    assert compare_merges([*directories, other]).notes == ["other and low were made of different models"]


def test_directories_of_one_name_are_told_apart(tmp_path: Path) -> None:
    given = [write(tmp_path / folder / "merged", 1.0, 1.0) for folder in ("a", "b")]
    assert [merge.name for merge in compare_merges([*given, given[0]]).merges] == given


def test_the_command_prints_a_table_and_writes_a_page(command: Command, directories: list[str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = command("compare", *directories, "--page", page, "--scatter", "dialect_match,perplexity")
    assert result.status == 0, result.err
    lines = result.out.splitlines()
    assert lines[0].split() == ["metric", "label", *VALUES, "unit"]
    assert lines[1].split() == ["perplexity", "↓", "all", "12.50*", "14.00", "15.50"]
    assert lines[3].split() == ["dialect_match", "↑", "all", "0.5000", "0.7500", "0.9000*"]
    text = page.read_text(encoding="utf-8")
    assert "perplexity over dialect_match" in text
    assert "low 0.5 and 12.5; middle 0.75 and 14; high 0.9 and 15.5." in text
    again = command("compare", *directories, "--page", page)
    assert again.status == 4
    assert "exists already" in again.err
    assert json.loads(command("compare", *directories, "--json").out) == compare_merges(directories).as_dict()


def test_dots_lie_where_their_numbers_are(directories: list[str]) -> None:
    """The three are on the picture in the order of their numbers, at distances like theirs."""
    page = render(compare_merges(directories), ("perplexity", "dialect_match")).decode()
    dots = [
        tuple(map(float, found))
        for found in re.findall(r'<circle class="d\d" cx="([\d.]+)" cy="([\d.]+)" r="4"/>\n<text', page)
    ]
    (x1, y1), (x2, y2), (x3, y3) = dots
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert (y1 - y2) / (y2 - y3) == pytest.approx(0.25 / 0.15, rel=0.01)
    assert 46 <= x1 < x3 <= 350
    assert 10 <= y3 < y1 <= 180


def test_without_a_wish_the_scatter_shows_the_first_two_metrics_if_there_are_two(
    directories: list[str], tmp_path: Path
) -> None:
    assert axes_of(compare_merges(directories), None) == ("perplexity", "dialect_match")
    one = compare_merges([write(tmp_path / "a", 3.0, None), write(tmp_path / "b", 4.0, None)])
    assert axes_of(one, None) is None
    assert "<svg" not in render(one, None).decode()


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["low"], 2, "comparing takes two merges at least"),
        (["low", "low"], 2, "no two of them were measured alike (only one is given)"),
        (["low", "nowhere"], 3, "nowhere: is no directory. Name directories that merges wrote"),
        (["low", "empty"], 3, "empty: has no validation.json. Validate the model with 'modelmerger validate'"),
        (["low", "broken"], 3, "broken/validation.json: is not sound JSON"),
        (["low", "listed"], 3, "listed/validation.json: is no JSON object"),
        (["low", "strange"], 3, "strange/validation.json: does not say what a validation writes there"),
        (["low", "endless"], 3, "endless/validation.json: does not say what a validation writes there"),
        (["low", "high", "--scatter", "perplexity,fluency"], 2, "--scatter is about the page"),
        (["low", "high", "--page", "p", "--scatter", "perplexity,fluency"], 2, "no metric is named 'fluency'"),
        (["low", "high", "--page", "p", "--scatter", "perplexity"], 2, "--scatter wants two metrics"),
        (["low", "high", "--page", "nowhere/p"], 4, "nowhere/p: cannot be written"),
    ],
)
def test_a_mistake_is_one_sentence(
    command: Command,
    directories: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "empty": None,
        "broken": "{",
        "listed": "[]",
        "strange": "{}",
        "endless": json.dumps(
            json.loads(Path("low/validation.json").read_text()) | {"findings": [finding("x", float("inf"))]}
        ),
    }.items():
        Path(name).mkdir()
        if text is not None:
            Path(name, "validation.json").write_text(text)
    result = command("compare", *arguments)
    assert (result.status, len(result.err.splitlines())) == (status, 1), result.err
    assert sentence in result.err
    assert not Path("p").exists()


def test_the_page_is_the_same_again_and_has_no_script(directories: list[str]) -> None:
    found = compare_merges(directories)
    page = render(found, axes_of(found, None))
    assert page == render(found, axes_of(found, None))
    assert b"<script" not in page
    assert b"default-src 'none'" in page


def hostile(tmp_path: Path) -> bytes:
    """A page of merges every text of which is hostile, one of them measured otherwise."""
    texts = merges.HOSTILE[:3]
    found = [
        finding(text, 1.0 + i, label, evidence=text, unit=text) for i, text in enumerate(texts) for label in ("", text)
    ]
    given = [write(tmp_path / name, 1, 1, findings=found) for name in ("<b>a", "b" * 120, "c", "d")]
    given.append(write(tmp_path / "e", 1, 1, findings=found, settings=settings(dataset=merges.HOSTILE[0])))
    compared = compare_merges(given)
    return render(compared, axes_of(compared, None))
