"""What differs between two models: distances against numpy, configs, files, vocabularies, and manifests alone."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CONFIG, write_model
from modelmerger import ConfigError, InputError, MergeConfig, merge
from modelmerger_plugins.diff import tensors
from modelmerger_plugins.diff.differences import Differences, compare

Command = Callable[..., SimpleNamespace]


def compared(a: Path, b: Path) -> Differences:
    return compare(str(a), str(b), None, lambda done, total: None)


def test_distances_are_those_of_numpy(models: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "PIECE", 100)
    found = compared(models.a, models.b)
    a, b = ({name: value.double().numpy() for name, value in models.tensors[which].items()} for which in ("a", "b"))
    for row in found.changes:
        old, new = a[row["name"]], b[row["name"]]
        assert row["relative"] == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old), rel=1e-12)
        assert row["largest"] == np.abs(new - old).max()
        assert row["changed"] == (new != old).sum()
        assert row["elements"] == new.size
    old, new = (np.concatenate([model[name].ravel() for name in sorted(a)]) for model in (a, b))
    assert found.relative == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old), rel=1e-12)
    assert found.cosine == pytest.approx(new @ old / np.linalg.norm(new) / np.linalg.norm(old), rel=1e-12)
    layer = next(group for group in found.groups if group.name == "model.layers.0")
    names = [name for name in a if name.startswith("model.layers.0.")]
    old, new = (np.concatenate([model[name].ravel() for name in names]) for model in (a, b))
    assert (layer.tensors, layer.changed) == (len(names), len(names))
    assert layer.relative == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old), rel=1e-12)
    names = [group.name for group in found.groups]
    assert names == ["before the layers", "model.layers.0", "model.layers.1", "behind the layers"]


def test_a_model_is_equal_to_itself_and_to_its_shards(models: SimpleNamespace) -> None:
    settings = {"options": {"max_shard_size": "1KB"}}
    merge(MergeConfig("weighted", [{"path": str(models.a)}], output_path=str(models.output), **settings))
    assert compared(models.a, models.a).are_equal
    sharded = compared(models.a, models.output)
    assert (sharded.changed, sharded.relative, sharded.cosine) == (0, 0.0, 1.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_differences_without_a_distance(models: SimpleNamespace, value: float) -> None:
    odd = {**models.tensors["a"]}
    odd["model.norm.weight"] = odd["model.norm.weight"].clone()
    odd["model.norm.weight"][3] = value
    write_model(models.b, odd)
    (row,) = compared(models.a, models.b).changes
    assert (row["name"], row["changed"], row["relative"]) == ("model.norm.weight", 1, None)


def test_a_dtype_alone_is_a_difference(models: SimpleNamespace) -> None:
    write_model(models.b, {name: value.float() for name, value in models.tensors["a"].items()})
    found = compared(models.a, models.b)
    assert (found.changed, found.relative) == (0, 0.0)
    assert not found.are_equal
    assert {tuple(row["dtypes"]) for row in found.changes} == {("BF16", "F32")}


def test_what_cannot_be_compared_is_named(models: SimpleNamespace) -> None:
    other = {name: value for name, value in models.tensors["a"].items() if "norm" not in name}
    other |= {"model.embed_tokens.weight": torch.zeros(3, 16), "extra": torch.zeros(2)}
    write_model(models.b, other)
    found = compared(models.a, models.b)
    assert found.only_b == ["extra"]
    assert found.only_a == ["model.layers.0.norm.weight", "model.norm.weight"]
    assert found.shapes == {"model.embed_tokens.weight": ((24, 16), (3, 16))}
    assert not found.are_equal


def test_configs_files_and_vocabularies(models: SimpleNamespace) -> None:
    write_model(models.b, models.tensors["a"])
    (models.b / "config.json").write_text(json.dumps({**CONFIG, "hidden_size": 8, "rope": {"theta": 5, "old": 1}}))
    (models.a / "config.json").write_text(json.dumps({**CONFIG, "rope": {"theta": 3, "old": 1}}))
    (models.a / "chat_template.jinja").write_text("a")
    (models.b / "chat_template.jinja").write_text("b")
    (models.b / "merges.txt").write_text("x")
    (models.b / "setup.py").write_text("1 / 0")
    for place, vocabulary in ((models.a, {"و": 0, "ا": 1, "ل": 2}), (models.b, {"و": 0, "ا": 2, "ب": 1})):
        added = [{"content": "<s>", "id": 3}]
        (place / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}, "added_tokens": added}))
    found = compared(models.a, models.b)
    assert [(one.where, one.a, one.b) for one in found.documents if not one.is_file] == [
        ("config.json: hidden_size", 16, 8),
        ("config.json: rope.theta", 3, 5),
    ]
    files = {one.where: (bool(one.a), bool(one.b)) for one in found.documents if one.is_file}
    assert files == {"chat_template.jinja": (True, True), "merges.txt": (False, True), "tokenizer.json": (True, True)}
    assert found.vocabulary == {"same": 2, "moved": 1, "only_a": 1, "only_b": 1}


def test_manifests_alone_say_which_tensors_differ(models: SimpleNamespace, tmp_path: Path) -> None:
    for name, weight in (("one", 1.0), ("two", 0.5), ("again", 1.0)):
        given = [{"path": str(models.a)}, {"path": str(models.b), "weight": weight}]
        merge(MergeConfig("weighted", given, output_path=str(tmp_path / name)))
    for name in ("two", "again"):
        (tmp_path / name / "model.safetensors").unlink()
    found = compared(tmp_path / "one/modelmerger.json", tmp_path / "two/modelmerger.json")
    assert (found.compared, found.relative) == ("digests", None)
    assert {row["name"] for row in found.changes} == set(models.tensors["a"])
    assert ("config of the merge: models") in [one.where for one in found.documents]
    assert compared(tmp_path / "one", tmp_path / "again/modelmerger.json").are_equal
    with pytest.raises(ConfigError, match="has no manifest to compare"):
        compared(models.a, tmp_path / "one/modelmerger.json")
    (tmp_path / "odd.json").write_text('{"files": {"x": {"pieces": 3}}}')
    with pytest.raises(InputError, match=r"odd\.json: is not the manifest of a merge"):
        compared(tmp_path / "one", tmp_path / "odd.json")


def test_the_command_prints_a_table_json_and_a_page(command: Command, models: SimpleNamespace, tmp_path: Path) -> None:
    page = tmp_path / "diff.html"
    result = command("diff", models.a, models.b, "--page", page)
    assert result.status == 0
    lines = result.out.splitlines()
    assert lines[:3] == [f"A  {models.a}", f"B  {models.b}", "7 of 7 tensors differ"]
    assert any(line.startswith("model.layers.0 ") for line in lines)
    data: dict[str, Any] = json.loads(command("diff", models.a, models.b, "--json").out)
    assert (data["tensors"], data["changed"], data["equal"]) == (7, 7, False)
    text = page.read_text()
    assert all(row["name"] in text for row in data["changes"])
    again = command("diff", models.a, models.b, "--page", page)
    assert (again.status, again.err) == (4, f"error: {page}: exists already. Give another name, or remove it\n")
    nowhere = command("diff", models.a, "nowhere", "--json")
    assert (nowhere.status, json.loads(nowhere.out)["error"]["exit_status"]) == (3, 3)
