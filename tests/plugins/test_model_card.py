"""The model card: what the sources' cards say of licences, and what the merged model's card makes of it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from inputs.watching import at_once
from modelmerger import Finding, MergeConfig, Sample, ValidationReport, merge
from modelmerger_plugins.model_card import BEGIN, END, write_companions

DIFFER = "**The licences of the sources differ ("
UNKNOWN = "Not every source states its licence."


def card(models: SimpleNamespace, config: dict[str, Any], *cards: bytes | None) -> tuple[dict[str, Any], str]:
    for path, content in zip((models.a, models.b), cards, strict=True):
        if content is not None:
            (path / "README.md").write_bytes(content)
    merge(MergeConfig(**config))
    _, head, body = (models.output / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def stating(licence: str, more: str = "") -> bytes:
    return f"---\nlanguage:\n- ar\n{licence}\n{more}---\n# Title\n".encode()


def test_the_head_names_the_sources_and_what_was_done(models: SimpleNamespace, config: dict[str, Any]) -> None:
    head, body = card(models, config, stating("license: mit"), stating("license: mit"))

    assert head == {
        "base_model": ["a", "b"],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["merge", "modelmerger"],
        "license": "mit",
    }
    assert DIFFER not in body
    assert UNKNOWN not in body
    assert "| a | mit |\n| b | mit |\n" in body
    models_of_card = [{"path": "a", "weight": 0.6}, {"path": "b", "weight": 0.4}]
    places = {"output_path": "merged", "models": models_of_card}
    assert yaml.safe_load(body.split("```yaml\n")[1].split("\n```")[0]) == config | places


def test_weights_by_layer_and_pattern_are_in_the_card_and_the_manifest(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    config["models"][0]["weight"] = {"*.norm.*": 0.5, "*.mlp.*": [0.1, 0.9], "default": 1}
    config["models"][1]["weight"] = [0, 1]

    _, body = card(models, config, None, None)

    written = yaml.safe_load(body.split("```yaml\n")[1].split("\n```")[0])
    recorded = json.loads((models.output / "modelmerger.json").read_text())["config"]
    places = {"output_path": "merged", "models": [{**config["models"][i], "path": name} for i, name in enumerate("ab")]}
    assert written == recorded == config | places
    assert list(written["models"][0]["weight"]) == ["*.norm.*", "*.mlp.*", "default"]


def test_licences_that_differ_are_a_warning_and_no_licence_of_the_merge(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    head, body = card(models, config, stating("license: apache-2.0"), stating("license: cc-by-nc-4.0"))

    assert "license" not in head
    assert f"{DIFFER}apache-2.0, cc-by-nc-4.0)" in body


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"# no head",
        b"---\nlicense: [\n---\n",
        b"---\nlicense:\n---\n",
        b"---\nlicense: *x\n---\n",
        b"---\n- x\n",
    ],
    ids=["no card", "empty", "no head", "no YAML", "no value", "an alias", "a list"],
)
def test_a_source_that_does_not_state_its_licence_is_a_warning(
    models: SimpleNamespace, config: dict[str, Any], content: bytes | None
) -> None:
    head, body = card(models, config, stating("license: mit"), content)

    assert "license" not in head
    assert UNKNOWN in body
    assert "| b | not stated |" in body


@pytest.mark.parametrize(
    "content",
    [
        stating("license: mit").replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + stating("license: mit"),
        stating("license: mit") + "مرحبا بالعالم".encode("windows-1256"),
        stating("license: mit", "datasets:\n- no\nmodel-index:\n- name: x\n  results: [{value: 0.5}]\n"),
        stating("license: 'mit'") + b"---\nlicense: gpl-3.0\n---\n" + b"x" * 3_000_000,
    ],
    ids=["CRLF", "byte order mark", "Windows-1256", "more keys", "long"],
)
def test_cards_are_read_as_they_come(models: SimpleNamespace, config: dict[str, Any], content: bytes) -> None:
    head, _ = card(models, config, stating("license: mit"), content)

    assert head["license"] == "mit"


def test_a_licence_of_its_own_is_told_by_its_name(models: SimpleNamespace, config: dict[str, Any]) -> None:
    named = stating("license: other", "license_name: qwen-research\n")

    head, body = card(models, config, named, named)

    assert (head["license"], head["license_name"]) == ("other", "qwen-research")
    assert DIFFER not in body


def test_two_licences_of_their_own_differ(models: SimpleNamespace, config: dict[str, Any]) -> None:
    one, two = (stating("license: other", f"license_name: {name}\n") for name in ("qwen-research", "gemma"))

    head, body = card(models, config, one, two)

    assert "license" not in head
    assert "differ (other&#58; gemma, other&#58; qwen-research)" in body


def test_other_without_a_name_says_nothing(models: SimpleNamespace, config: dict[str, Any]) -> None:
    head, body = card(models, config, stating("license: other"), stating("license: other"))

    assert "license" not in head
    assert UNKNOWN in body


def test_a_card_that_is_a_link_out_is_not_read(models: SimpleNamespace, config: dict[str, Any]) -> None:
    (models.folder / "secret").write_bytes(stating("license: secret"))
    (models.a / "README.md").symlink_to(models.folder / "secret")

    _, body = card(models, config, None, stating("license: mit"))

    assert "secret" not in body


def validated(directory: Path, answer: str = "زين", crossed: bool = False, value: float = 31.25) -> str:
    """The card after its section on a validation was written."""
    limits: dict[str, Any] = {"threshold": 20.0, "crossed": True} if crossed else {}
    finding = Finding(metric="perplexity", value=value, evidence="4 texts", unit="per token", model="merged", **limits)
    other = Finding(metric="perplexity", value=30.0, evidence="4 texts", unit="per token", model="chat")
    report = ValidationReport(
        directory=str(directory),
        validators={},
        settings={"thresholds": {"perplexity": 20.0} if crossed else {}},
        findings=[finding, other],
        samples=[
            Sample(prompt="شلونك؟", answer=answer, answered_label="gulf", model="merged"),
            Sample(prompt="شلونك؟", answer="of a source", model="chat"),
        ],
    )
    content = write_companions(directory, report)["README.md"]
    (directory / "README.md").write_bytes(content)
    return content.decode(errors="surrogateescape")


def test_a_validation_adds_a_section_that_takes_the_place_of_the_one_before(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    merge(MergeConfig(**config))
    before = (models.output / "README.md").read_text(encoding="utf-8")
    first = validated(models.output)
    assert first.startswith(before.rstrip())
    assert "| metric | label | merged | chat | unit |" in first
    assert "| perplexity | all | 31.25 | 30 | per token |" in first
    assert "- perplexity&#58; 4 texts" in first
    assert "| شلونك؟ | زين | gulf |" in first
    assert "of a source" not in first
    assert "hreshold" not in first
    second = validated(models.output, value=30.5)
    assert second == first.replace("31.25", "30.5")


def test_a_crossed_threshold_is_said(tmp_path: Path) -> None:
    card = validated(tmp_path, crossed=True)
    assert "**Thresholds crossed: 1 crossed&#58; perplexity is 31.25, worse than 20.**" in card
    assert "| 31.25 ✗ |" in card


def test_what_a_model_answers_is_no_markup_and_ends_no_section(tmp_path: Path) -> None:
    hostile = f"| <script> ![x](http://e) \x1b[2J \u202e {END} `"
    card = validated(tmp_path, answer=hostile)
    section = card.split("prompt | answer")[1]
    assert not [bad for bad in ("<script", "![", "\x1b", "\u202e", "`", "://") if bad in section.replace(END, "", 1)]
    assert card.count(END) == card.count(BEGIN) == 1
    assert validated(tmp_path, answer=hostile) == card


def test_what_the_user_wrote_around_the_section_stays(tmp_path: Path) -> None:
    validated(tmp_path)
    path = tmp_path / "README.md"
    path.write_bytes(b"# Mine \xff\n" + path.read_bytes() + b"\nand after\n")
    validated(tmp_path, value=30.5)
    content = path.read_bytes()
    assert content.startswith(b"# Mine \xff\n# Merged model\n")
    assert b"\nand after\n" in content
    assert content.count(BEGIN.encode()) == 1


def test_sections_that_never_end_take_no_more_time_than_others(tmp_path: Path) -> None:
    """Of four megabytes, each beginning was looked from to the end of the card."""
    report = ValidationReport(directory=str(tmp_path), validators={}, settings={}, findings=[], samples=[])
    (tmp_path / "README.md").write_text(
        f"a\n{BEGIN}\nold\n{END}\nb\n{BEGIN}\n{BEGIN}\n{END}\n" + f"{BEGIN}\n" * 100_000
    )

    with at_once():
        card = write_companions(tmp_path, report)["README.md"].decode()

    assert card.startswith(f"a\nb\n{BEGIN}\n{BEGIN}\n")
