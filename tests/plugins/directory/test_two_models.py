"""What is noted of models that could be another thing than was meant: an adapter beside a model, a base over again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import random_tensors, write_model
from safetensors.torch import load_file, save_file

Command = Callable[..., SimpleNamespace]
SAME = "has the same numbers as the base model wherever the two were compared"


@pytest.fixture
def notes(command: Command, models: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """What `check` says of a merge that it lets through."""
    monkeypatch.chdir(models.folder)

    def said(*paths: str, **more: Any) -> list[str]:
        given = {"strategy": "weighted", "models": [{"path": path} for path in paths], **more}
        Path("merge.json").write_text(json.dumps(given))
        result = command("check", "merge.json", "--json")
        assert result.status == 0, result.err
        return [line for line in result.out.splitlines() if '"message"' in line]

    return said


def write_adapter(folder: Path, base: Path) -> None:
    folder.mkdir()
    name = "base_model.model.model.layers.0.mlp.lora_{}.weight"
    save_file(
        {name.format("A"): torch.ones(2, 16), name.format("B"): torch.ones(40, 2)}, folder / "adapter_model.safetensors"
    )
    said = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["mlp"],
        "base_model_name_or_path": str(base),
    }
    (folder / "adapter_config.json").write_text(json.dumps(said))


def test_an_adapter_beside_a_whole_model_is_taken_with_a_note(
    notes: Callable[..., list[str]], command: Command, models: SimpleNamespace
) -> None:
    folder = models.folder / "ad"
    write_adapter(folder, models.base)
    assert not any("whole model" in note for note in notes("./ad"))
    save_file({"t": torch.ones(2)}, folder / "model.safetensors")

    (note,) = [note for note in notes("./ad") if "whole model" in note]

    assert "The adapter with its base is taken, and model.safetensors is not read." in note
    assert command("merge", "merge.json", "--output", "out").status == 0
    merged = load_file("out/model.safetensors")
    assert merged.keys() == models.tensors["base"].keys()
    assert not torch.equal(merged["model.layers.0.mlp.weight"], models.tensors["base"]["model.layers.0.mlp.weight"])


COPIES = {
    "the same path": lambda m: "./base",
    "a link": lambda m: (m.folder / "link").symlink_to("base") or "./link",
    "a copy": lambda m: shutil.copytree(m.base, m.folder / "copy") and "./copy",
    "other files": lambda m: write_model(m.folder / "shards", m.tensors["base"], shards=3) and "./shards",
}


@pytest.mark.parametrize("case", COPIES)
def test_a_fine_tune_that_is_its_base_is_noted(
    notes: Callable[..., list[str]], models: SimpleNamespace, case: str
) -> None:
    path = COPIES[case](models)

    (note,) = [note for note in notes(path, "./a", base_model="./base", strategy="task_arithmetic") if SAME in note]

    assert path.removeprefix("./") in note


def test_a_model_that_differs_in_one_tensor_is_another(
    notes: Callable[..., list[str]], models: SimpleNamespace
) -> None:
    tensors = {**models.tensors["base"], "model.norm.weight": random_tensors(9)["model.norm.weight"]}
    write_model(models.folder / "tuned", tensors)

    assert not any(SAME in note for note in notes("./tuned", "./a", base_model="./base"))


def test_an_adapter_is_not_compared_with_its_base(notes: Callable[..., list[str]], models: SimpleNamespace) -> None:
    write_adapter(models.folder / "ad", models.base)

    assert not any(SAME in note for note in notes("./ad", base_model="./base"))
