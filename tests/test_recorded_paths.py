"""No local path in what is passed on, whatever the config, the notes and the plugins name, unless it is asked for."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import directory_state, write_model
from modelmerger import MergeConfig, ModelMerger, merge
from safetensors.torch import save_file

COMPANY = "secret project"
"""A folder that nobody else is to know of."""


CONFIG = {
    "model_type": "test",
    "auto_map": {"AutoModel": "evil.Model"},
    "_name_or_path": f"/home/{COMPANY}/chat",
    "text_config": {"_name_or_path": f"~/{COMPANY}"},
    "vision_config": {"_name_or_path": "org/vision"},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / COMPANY
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    names = [f"model.layers.{i}.self_attn.q_proj.weight" for i in range(2)]
    for number, model in enumerate(("base", "chat", "formal")):
        generator = torch.Generator().manual_seed(number)
        tensors = {name: torch.randn(8, 8, generator=generator) for name in names}
        write_model(folder / model, tensors, config=CONFIG)
        (folder / model / "README.md").write_text("---\nlicense: mit\n---\n")
    adapter = folder / "adapter"
    adapter.mkdir()
    factors = {
        f"base_model.model.{name.removesuffix('.weight')}.lora_{factor}.weight": torch.ones(shape)
        for name in names
        for factor, shape in (("A", (2, 8)), ("B", (8, 2)))
    }
    save_file(factors, adapter / "adapter_model.safetensors")
    told = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": str(folder / "other"),
    }
    (adapter / "adapter_config.json").write_text(json.dumps(told))
    return folder


def soup(place: Path) -> dict[str, Any]:
    return {"strategy": "weighted", "models": [{"path": str(place / "chat")}, {"path": str(place / "formal")}]}


CONFIGS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "plain": soup,
    "relative": lambda place: soup(place.relative_to(place.parent)),
    "base": lambda place: soup(place) | {"strategy": "task_arithmetic", "base_model": str(place / "base")},
    "a merge within": lambda place: soup(place) | {"models": [{"merge": soup(place)}, {"path": str(place / "base")}]},
    "a named merge": lambda place: soup(place) | {"merges": {"soup": soup(place)}, "models": [{"path": "soup"}]},
    "a dataset": lambda place: soup(place) | {"validation": {"run_tests": False, "dataset": str(place / "texts.txt")}},
    "scratch": lambda place: soup(place) | {"options": {"offload_folder": str(place / "scratch")}},
    "an adapter of another base": lambda place: {
        "strategy": "weighted",
        "models": [{"path": str(place / "adapter")}],
        "peft_config": {"base_model_path": str(place / "base"), "merge_adapters": False},
    },
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_nothing_that_is_passed_on_names_a_local_path(place: Path, config: Callable[[Path], dict[str, Any]]) -> None:
    given = config(place) | {"output_path": str(place / "merged")}
    report = merge(MergeConfig(**given))

    found = directory_state(place / "merged") or {}
    assert [name for name, content in found.items() if COMPANY.encode() in content] == []
    assert b"org/vision" in found["config.json"]
    manifest = json.loads(found["modelmerger.json"])
    assert manifest["config"]["output_path"] == "merged"
    assert len(manifest["notes"]) == len(report.notes)
    assert report.output == str(place / "merged")
    names = {"chat", "formal", "base", "adapter"} & {model["name"] for model in manifest["sources"]}
    assert all(name in found["README.md"].decode() for name in names)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_paths_are_recorded_as_they_were_given_when_asked_for(
    place: Path, config: Callable[[Path], dict[str, Any]]
) -> None:
    given = config(place) | {"output_path": str(place / "merged")}
    given["options"] = given.get("options", {}) | {"record_paths": True}
    merge(MergeConfig(**given))

    assert json.loads((place / "merged" / "modelmerger.json").read_text())["config"] == given
    assert COMPANY in (place / "merged" / "README.md").read_text()


def test_the_command_line_can_ask_for_them(place: Path, command: Callable[..., SimpleNamespace]) -> None:
    path = place / "merge.json"
    path.write_text(json.dumps(soup(place) | {"output_path": str(place / "merged")}))

    assert command("merge", path, "--record-paths").status == 0
    assert COMPANY in (place / "merged" / "modelmerger.json").read_text()
    assert command("merge", path, "--overwrite").status == 0
    assert COMPANY not in (place / "merged" / "modelmerger.json").read_text()


def test_recording_decides_nothing_of_what_is_merged(place: Path) -> None:
    digests = {
        ModelMerger(MergeConfig(**soup(place), options={"record_paths": asked})).plan().digest
        for asked in (False, True)
    }
    assert len(digests) == 1
