"""Rows B17 and B18: names of tensors, models, files and licences that would like to be markup, escape codes or paths."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from conftest import write_model
from inputs.refusing import weighted
from modelmerger import ConfigError, MergeConfig, ModelMerger, merge, shown, verify
from safetensors.torch import load_file

Command = Callable[..., SimpleNamespace]

NAMES = {
    "../../../outside": "dots",
    "/etc/passwd": "absolute",
    "a\u202eb": "bidi",
    "a\u2066b": "isolate",
    "caf\u00e9": "NFC",
    "cafe\u0301": "NFD",
    "طبقة.وزن": "Arabic",
    "<script>alert(1)</script>": "HTML",
    "| `x` | [a](http://b) |": "Markdown",
    "%s%n{0}{x}": "format",
    "x" * 1024: "long",
    " ": "space",
}
ESCAPES = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def named_model(folder: Path, factor: float) -> Path:
    tensors = {name: torch.full((4,), factor * (i + 1)) for i, name in enumerate(NAMES)}
    return write_model(folder, tensors, None)


def test_tensors_of_any_name_are_merged_under_that_name(tmp_path: Path) -> None:
    """B17: twins that differ in normalisation stay two; no name becomes a path, in one file or in shards."""
    a, b = named_model(tmp_path / "a", 1.0), named_model(tmp_path / "b", 3.0)
    before = sorted(os.listdir(tmp_path))

    for shard_size, files in (("5GB", 1), (16, len(NAMES))):
        output = tmp_path / f"merged {files}"
        merge(MergeConfig(**weighted(a, b, output_path=str(output), options={"max_shard_size": shard_size})))
        merged = {}
        for path in sorted(output.glob("*.safetensors")):
            merged |= load_file(path)
        assert len(list(output.glob("*.safetensors"))) == files
        assert merged.keys() == NAMES.keys()
        for i, name in enumerate(NAMES):
            assert torch.equal(merged[name], torch.full((4,), 2.0 * (i + 1)))
        verify(output)
    assert sorted(set(os.listdir(tmp_path)) - {"merged 1", f"merged {len(NAMES)}"}) == before


@pytest.mark.parametrize("name", NAMES, ids=NAMES.values())
def test_a_tensor_name_is_escaped_in_messages(models: SimpleNamespace, command: Command, name: str) -> None:
    """B17, B18: on the terminal, in the plan and in JSON that is read back."""
    tensors = {"w": torch.zeros(2), name: torch.zeros(3)}
    a = write_model(models.folder / "x", tensors, None)
    b = write_model(models.folder / "y", {**tensors, name: torch.zeros(4)}, None)
    path = models.folder / "merge.json"
    path.write_text(json.dumps(weighted(a, b)))

    result = command("check", path)

    assert result.status == 3
    (line,) = result.err.splitlines()
    assert shown(name) in line
    assert not ESCAPES.search(line)
    assert len(line) <= 307
    assert "has shape [4] here and [3] in 'x'" in line


HOSTILE = [
    "a\u202egpj.exe",
    "</td><script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "**bold** _it_ ~~no~~ `code`",
    "```\n# heading\n```",
    "| cell | cell |",
    "--- \nlicense: apache-2.0\n---",
    "https://evil.example www.evil.example a@evil.example",
    "<!-- ",
    "&lt;b&gt;",
    "\\| \\` ",
    "../../escape",
    "مرحبا",
]


def card_of(models: SimpleNamespace, config: dict[str, Any]) -> tuple[dict[str, Any], str, str]:
    """The head of the model card as data, the text between head and config, and the config block."""
    merge(MergeConfig(**config))
    text = (models.output / "README.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    prose, config_part = body.split("\n## Config\n\n")
    return yaml.safe_load(head), prose, config_part


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_names_and_licences_are_no_markup_in_the_model_card(
    models: SimpleNamespace, config: dict[str, Any], name: str
) -> None:
    """B18: Markdown, HTML, YAML, escape codes, links, and characters that turn the order of others around."""
    config["models"][0]["name"] = name
    (models.a / "README.md").write_text(f"---\nlicense: {json.dumps(name)}\n---\n", encoding="utf-8")
    (models.b / "README.md").write_text("---\nlicense: mit\n---\n")

    head, prose, block = card_of(models, config)

    assert head["tags"] == ["merge", "modelmerger"]
    assert "license" not in head
    assert not ESCAPES.search(prose)
    assert not re.search(r"[<>`~\[\]]", prose.replace("`modelmerger verify`", "").replace("# Merged model", ""))
    assert "://" not in prose
    assert not re.search(r"www\.|\w@\w", prose)
    rows = [line for line in prose.splitlines() if line.startswith("|")]
    assert len(rows) == 4
    assert all(row.count("|") == 3 for row in rows)
    fence = re.match(r"(`+)yaml\n", block)[1]
    assert block.endswith(f"\n{fence}\n")
    inside = block[len(fence) + 5 : -len(fence) - 1]
    assert fence not in inside
    assert not ESCAPES.search(inside)
    models_of_card = [{**model, "path": place} for model, place in zip(config["models"], "ab", strict=True)]
    assert yaml.safe_load(inside) == config | {"models": models_of_card, "output_path": "merged"}


def test_a_fence_cannot_be_closed_from_inside(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """B18."""
    config["models"][0]["name"] = "`" * 7
    _, _, block = card_of(models, config)

    assert block.startswith("`" * 8 + "yaml\n")


def test_a_config_that_no_document_could_hold_is_refused_before_the_merge(models: SimpleNamespace) -> None:
    """B18: escape codes in a path can only come from Python; the model card and the manifest would have to hold them."""
    folder = models.folder / "a\x1b[31m"
    models.a.rename(folder)

    with pytest.raises(ConfigError, match=re.escape("models[0].path: the character U+001B is not allowed")):
        ModelMerger(MergeConfig(**weighted(folder, models.b))).check_compatibility()


def test_licences_of_names_that_clash_or_are_paths_stay_apart(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """B17, B18: `licenses/NAME/` is made of the source's name, whatever that is."""
    names = ["x/y", "x_y", "X_Y", "..", "ن" * 300, "\u202eevil\n"]
    config["models"] = []
    for number, name in enumerate(names):
        folder = write_model(models.folder / f"model {number}", models.tensors["a"])
        (folder / "LICENSE").write_text(f"licence {number}")
        config["models"].append({"path": str(folder), "name": name})

    merge(MergeConfig(**config))

    written = {path.parent.name: path.read_text() for path in (models.output / "licenses").rglob("LICENSE")}
    assert sorted(written.values()) == [f"licence {number}" for number in range(len(names))]
    assert (written["x_y"], written["x_y-2"]) == ("licence 0", "licence 1")
    assert len({folder.casefold() for folder in written}) == len(names)
    assert not any(ESCAPES.search(folder) or folder.startswith(".") for folder in written)
    assert all(len(folder.encode()) <= 255 for folder in written)
    verify(models.output)


def test_files_of_hostile_names_neither_end_a_merge_nor_keep_their_names(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    """B17."""
    (models.a / "LICENSE.\x1b[2J").write_text("one")
    (models.a / "LICENSE.\u202e\n").write_text("two")
    (models.a / "NOTICE.\\..\\x").write_text("three")
    (models.a / "evil\x1b.model").write_text("no")
    (models.a / "back\\slash.model").write_text("no")
    (models.a / os.fsdecode(b"LICENSE.\xff")).write_text("four")
    (models.a / "additional_chat_templates").mkdir()
    (models.a / "additional_chat_templates" / "\x1b.jinja").write_text("no")

    merge(MergeConfig(**config))

    licences = [path for path in models.output.rglob("*") if "licenses/" in str(path) and path.is_file()]
    assert sorted(path.read_text() for path in licences) == ["four", "one", "three", "two"]
    names = [str(path.relative_to(models.output)) for path in models.output.rglob("*")]
    assert all(name.isprintable() and "\\" not in name for name in names)
    assert not list(models.output.rglob("*.model"))
    verify(models.output)


def test_a_file_name_that_is_no_utf_8_is_read_and_recorded(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """B17."""
    (models.b / "model.safetensors").rename(models.b / os.fsdecode(b"\xff.safetensors"))

    merge(MergeConfig(**config))

    manifest = json.loads((models.output / "modelmerger.json").read_text(encoding="utf-8"))
    assert manifest["sources"][1]["files"][0]["name"] == "\udcff.safetensors"
    verify(models.output)
