"""The model card: what the sources' cards say of licences, and what the merged model's card makes of it."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from modelmerger import MergeConfig, merge

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
        "base_model": [str(models.a), str(models.b)],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["merge", "modelmerger"],
        "license": "mit",
    }
    assert DIFFER not in body
    assert UNKNOWN not in body
    assert "| a | mit |\n| b | mit |\n" in body
    assert yaml.safe_load(body.split("```yaml\n")[1].split("\n```")[0]) == config


def test_weights_by_layer_and_pattern_are_in_the_card_and_the_manifest(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    config["models"][0]["weight"] = {"*.norm.*": 0.5, "*.mlp.*": [0.1, 0.9], "default": 1}
    config["models"][1]["weight"] = [0, 1]

    _, body = card(models, config, None, None)

    written = yaml.safe_load(body.split("```yaml\n")[1].split("\n```")[0])
    assert written == json.loads((models.output / "modelmerger.json").read_text())["config"] == config
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
