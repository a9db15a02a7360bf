"""Models that a merger keeps open from one merge to the next."""

import gc
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import SHAPES, random_tensors, write_model
from modelmerger import ConfigError, FileCheckpoint, InputError, MergeConfig, ModelCompatibilityError, ModelMerger
from safetensors.torch import load_file

from tests.core.plugging import install

ASKED = """
from modelmerger import hookimpl

names = []

@hookimpl
def load_model(reference, context):
    if not context.trusted:  # as what was merged a moment ago is, which is opened to be returned
        names.append(reference.name)
"""
SHORTER = """
from modelmerger import CheckpointView, hookimpl

@hookimpl
def view_models(checkpoints):
    return [CheckpointView(model, {name: name for name in list(model.tensors)[:-1]}) for model in checkpoints]
"""


@pytest.fixture
def loads(distribution: Callable[..., Path]) -> list[str]:
    """Names of the models in the order in which they are opened: that in which plugins are asked for them."""
    (module,) = install(distribution, [("plugin", "asked", ASKED)])
    found: list[str] = importlib.import_module(module).names
    return found


@pytest.fixture
def merger(config: dict[str, Any], models: SimpleNamespace) -> ModelMerger:
    for path in (models.a, models.b):  # without config.json, so that merge() returns the tensors themselves
        (path / "config.json").unlink()
    config["options"] = {"cache_models": True, "overwrite": True}
    return ModelMerger(MergeConfig(**config))


def merged(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model.safetensors")


def test_models_are_opened_once_and_other_weights_and_strategies_use_them(
    merger: ModelMerger, loads: list[str], models: SimpleNamespace
) -> None:
    merger.merge()
    merger.config.models[0]["weight"], merger.config.models[1]["weight"] = 0.0, 1.0
    merger.merge()
    assert torch.equal(merged(models.output)["model.norm.weight"], models.tensors["b"]["model.norm.weight"])
    merger.config.strategy = "slerp"
    merger.config.options["overwrite"] = True
    merger.merge()

    assert loads == ["a", "b"]


def test_kept_models_are_viewed_anew_in_each_merge(
    merger: ModelMerger, loads: list[str], models: SimpleNamespace, distribution: Callable[..., Path]
) -> None:
    """A view of a view would leave two tensors out the second time."""
    install(distribution, [("plugin", "shorter", SHORTER)], "shorter-merge")
    for _ in range(2):
        merger.merge()
        assert list(merged(models.output)) == sorted(list(SHAPES)[:-1])

    assert loads == ["a", "b"]


def test_without_the_option_they_are_opened_each_time(merger: ModelMerger, loads: list[str]) -> None:
    del merger.config.options["cache_models"]

    merger.merge()
    merger.merge()

    assert loads == ["a", "b", "a", "b"]


def test_a_model_that_was_written_anew_is_opened_anew(
    merger: ModelMerger, loads: list[str], models: SimpleNamespace
) -> None:
    merger.merge()
    new = random_tensors(9)
    write_model(models.b, new, config=None)
    merger.config.models[0]["weight"] = 0.0
    merger.merge()

    assert loads == ["a", "b", "a", "b"]
    assert torch.equal(merged(models.output)["model.norm.weight"], new["model.norm.weight"])


def test_a_file_that_came_into_the_directory_is_seen(
    merger: ModelMerger, loads: list[str], models: SimpleNamespace
) -> None:
    """A config.json that was not there says something else about the model."""
    merger.merge()
    (models.a / "config.json").write_text('{"hidden_size": 99}')
    (models.b / "config.json").write_text('{"hidden_size": 24}')

    with pytest.raises(ModelCompatibilityError, match="99"):
        merger.check_compatibility()

    assert loads == ["a", "b", "a", "b"]


def test_a_file_of_the_same_size_and_time_is_another_file(
    merger: ModelMerger, loads: list[str], models: SimpleNamespace
) -> None:
    weights = models.b / "model.safetensors"
    before = weights.stat()
    merger.merge()
    write_model(models.b, random_tensors(9), config=None)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    merger.merge()

    assert loads == ["a", "b", "a", "b"]


def test_other_models_are_not_taken_for_the_ones_that_are_kept(
    merger: ModelMerger, loads: list[str], models: SimpleNamespace
) -> None:
    merger.merge()
    merger.config.models[1]["path"] = str(models.base)
    merger.merge()

    assert loads == ["a", "b", "a", "base"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("allow_pickle", True), ("torch_dtype", "float32"), ("sequential_loading", True), ("preserve_tokenizer", False)],
)
def test_with_another_option_they_are_opened_anew(
    merger: ModelMerger, loads: list[str], option: str, value: object
) -> None:
    merger.merge()
    merger.config.options[option] = value
    merger.merge()

    assert loads == ["a", "b", "a", "b"]


def test_what_may_be_read_no_more_is_not_kept(merger: ModelMerger, models: SimpleNamespace) -> None:
    for name in ("a", "b"):
        (models.folder / name / "model.safetensors").unlink()
        torch.save(models.tensors[name], models.folder / name / "pytorch_model.bin")
    merger.config.options["allow_pickle"] = True
    merger.merge()
    merger.config.options["allow_pickle"] = False

    with pytest.raises(InputError, match="allow_pickle"):
        merger.merge()


def test_after_a_failure_nothing_is_kept(merger: ModelMerger, loads: list[str], models: SimpleNamespace) -> None:
    merger.config.output_path = str(models.folder / "no" / "such" / "folder")
    with pytest.raises(Exception, match="does not exist"):
        merger.merge()
    merger.config.output_path = str(models.output)
    merger.merge()

    assert loads == ["a", "b", "a", "b"]


def test_a_base_model_is_still_asked_for(merger: ModelMerger, loads: list[str]) -> None:
    merger.merge()
    merger.config.strategy = "task_arithmetic"
    with pytest.raises(ConfigError, match="needs base_model"):
        merger.merge()


def test_models_in_memory_are_read_as_they_are_now(loads: list[str], models: SimpleNamespace) -> None:
    tensors = dict(models.tensors["a"])
    sources: list[dict[str, Any]] = [{"path": tensors, "weight": 1.0}, {"path": models.tensors["b"], "weight": 0.0}]
    options = {"cache_models": True, "overwrite": True}
    merger = ModelMerger(MergeConfig("weighted", sources, output_path=str(models.output), options=options))
    assert isinstance(merger.merge(), FileCheckpoint)
    tensors["model.norm.weight"] = torch.ones(SHAPES["model.norm.weight"], dtype=torch.bfloat16)
    merger.merge()

    assert merged(models.output)["model.norm.weight"].eq(1).all()
    assert loads == ["model_0", "model_1", "model_0", "model_1"]


def test_kept_files_are_closed_with_the_merger(merger: ModelMerger, models: SimpleNamespace) -> None:
    def open_files() -> list[str]:
        links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
        found = [os.readlink(link) for link in links if os.path.islink(link)]
        return [name for name in found if name.startswith((str(models.a), str(models.b)))]

    another = ModelMerger(merger.config)
    another.merge()
    assert len(open_files()) == 2
    del another
    gc.collect()

    assert open_files() == []


def test_a_missing_model_is_said_with_its_key_in_a_merge_within_the_merge_and_with_a_merge_of_a_near_name(
    config: dict[str, Any], models: SimpleNamespace
) -> None:
    soup = {"strategy": "weighted", "models": [{"path": str(models.a)}, {"path": "./nowhere"}]}
    deeper = {"strategy": "weighted", "models": [{"path": "suop"}, {"path": str(models.b)}], "base_model": "absent"}
    asked = [{"path": "soup"}, {"path": "soop"}, {"merge": deeper}, {"path": "gone"}]
    merger = ModelMerger(MergeConfig(**config | {"models": asked, "merges": {"soup": soup}}))
    with pytest.raises(InputError) as caught:
        merger.check_compatibility()
    advice = "Check the path; a model on the Hub is given as org/name."
    assert caught.value.lines() == [
        "./nowhere: does not exist (merges.soup.models[1].path). Check the path.",
        "soop: does not exist, did you mean the merge 'soup'?",
        "suop: does not exist (models[2].merge.models[0].path), did you mean the merge 'soup'?",
        f"absent: does not exist (models[2].merge.base_model). {advice}",
        f"gone: does not exist. {advice}",
    ]


@pytest.mark.parametrize("written", ["./chta", "chta", "./chta/", "{folder}/chta"])
def test_a_path_that_is_near_to_one_is_said_with_it(
    models: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    (models.folder / "chat").mkdir()
    monkeypatch.chdir(models.folder)
    path = written.format(folder=models.folder)

    with pytest.raises(InputError) as caught:
        ModelMerger(MergeConfig(strategy="weighted", models=[{"path": path}])).check_compatibility()

    near = path.rstrip("/").replace("chta", "chat")
    assert caught.value.problems[0].message == f"does not exist, did you mean '{near}'?"
