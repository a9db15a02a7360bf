from pathlib import Path

import pytest
from modelmerger.output.recorded import Recording, is_local, recorded_path
from modelmerger.values.errors import Problem
from modelmerger.values.findings import Finding, Sample, ValidationReport

SNAPSHOT = "/home/me/.cache/huggingface/hub/models--org--name/snapshots/0123abc"
PLACES = {
    "/home/me/models/chat": "chat",
    "/home/me/models/chat/": "chat",
    "./chat": "chat",
    "../models/chat": "chat",
    "~/chat": "chat",
    "C:\\models\\chat": "chat",
    "/": "/",
    SNAPSHOT: "org/name",
    "file:///home/me/chat": "chat",
}


@pytest.mark.parametrize(("path", "name"), PLACES.items())
def test_of_a_local_path_the_last_part_is_recorded(path: str, name: str) -> None:
    assert recorded_path(path) == name
    assert is_local(path)
    assert Recording().value({"models": [{"path": path}]}) == {"models": [{"path": name}]}
    assert Recording(as_given=True).value({"path": path}) == {"path": path}


@pytest.mark.parametrize(
    "text",
    ["org/name", "org/name@main", "weighted", "chat", "bfloat16", "*.mlp.*", "", "~5 GB", "a\n/b", 3, None, 0.5],
)
def test_what_is_no_local_path_stays(text: object) -> None:
    assert Recording().value({"key": text}) == {"key": text}


def test_a_relative_path_that_exists_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "my name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    assert Recording().value(["org/my name", "org/name"]) == ["my name", "org/name"]


def test_prompts_are_texts_for_models() -> None:
    given = {"test_prompts": ["/home/me", "./go"], "dataset": "./texts/mine.txt"}

    assert Recording().value(given) == {**given, "dataset": "mine.txt"}


SENTENCES = {
    "/home/me/models/chat/config.json: auto_map is left out.": "config.json: auto_map is left out.",
    "texts of '/data/set.jsonl' (3).": "texts of 'set.jsonl' (3).",
    "this process (./mine.py, blake3 0123)": "this process (mine.py, blake3 0123)",
    f"found in {SNAPSHOT}": "found in org/name",
    "see https://huggingface.co/org/name or org/name": "see https://huggingface.co/org/name or org/name",
    "was trained on '/home/me/my base', and": "was trained on 'my base', and",
    "1/2 of the tensors and/or none": "1/2 of the tensors and/or none",
}


@pytest.mark.parametrize(("text", "recorded"), SENTENCES.items())
def test_in_a_sentence_paths_are_shortened(text: str, recorded: str) -> None:
    assert Recording().text(text) == recorded
    assert Recording(as_given=True).text(text) == text


def test_a_known_path_is_found_whatever_is_in_it(tmp_path: Path) -> None:
    model = tmp_path / "My Models" / "the best"
    recording = Recording.of([str(model)], as_given=False)

    found = recording.note(Problem(f"is not in {model}.", f"{model}/config.json", severity="warning"))

    assert found == Problem("is not in the best.", "the best/config.json", severity="warning")
    assert recording.text(f"{model} 2 and {model}s") != recording.text(f"{model} 2 and the bests")


def test_a_report_names_no_path_but_in_what_models_said() -> None:
    sample = Sample(prompt="ls /usr/bin", answer="/usr/bin/python")
    report = ValidationReport(
        directory="/home/me/out",
        validators={"mine": "this process (/home/me/my plugins/mine.py, blake3 01)"},
        settings={"dataset": "/home/me/my texts.txt", "test_prompts": ["/home/me"]},
        findings=[Finding(metric="p", value=1.0, evidence="3 texts of /home/me/my texts.txt")],
        samples=[sample],
    )

    found = Recording().report(report)

    assert found.directory == "out"
    assert "/" not in found.validators["mine"]
    assert found.findings[0].evidence == "3 texts of my texts.txt"
    assert found.samples == [sample]
    assert found.settings["test_prompts"] == ["/home/me"]
    assert Recording(as_given=True).report(report) is report
