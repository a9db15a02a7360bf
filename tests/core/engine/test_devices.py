"""Slices on another device, played by `cpu:0`, which torch tells from `cpu`; and what happens when its memory is used up."""

import itertools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modelmerger
import pytest
import torch
from conftest import directory_state
from core.plugging import install
from modelmerger import ConfigError, MergeConfig, PluginError
from modelmerger.engine.devices import slice_device
from safetensors.torch import load_file

DEVICE = torch.device("cpu:0")
ROWWISE = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, 2))

@hookimpl
def measure_tensor(tensors):
    return torch.stack([tensor.double().abs().sum() for tensor in tensors])

@hookimpl
def merge_tensor(tensors, measurements):
    return tensors[0] + tensors[1] * float(measurements[0][0] / measurements[0].sum())

@hookimpl
def finish_tensor(merged):
    return {"seen": merged.numel()}
"""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """`gpu(rooms)`: a device with memory for so many allocations; the list of those that were made."""
    made: list[int] = []
    empty = torch.empty

    def install(room: int | None = None) -> list[int]:
        count = itertools.count(1)

        def allocate(*shape: Any, device: Any = None, **keywords: Any) -> torch.Tensor:
            if device == DEVICE:
                if room is not None and next(count) > room:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
                made.append(shape[0])
            return empty(*shape, device=device, **keywords)

        monkeypatch.setattr(torch, "empty", allocate)
        monkeypatch.setattr("modelmerger.run.slice_device", lambda _: DEVICE)
        return made

    return install


def merged(config: Mapping[str, Any], output: Path, **options: Any) -> tuple[dict[str, torch.Tensor], Any]:
    report = modelmerger.merge(MergeConfig(**{**config, "output_path": str(output), "options": options}))
    return load_file(output / "model.safetensors"), report


@pytest.mark.parametrize("strategy", ["weighted", "slerp", "task_arithmetic", "rowwise"])
@pytest.mark.parametrize("room", [None, 0, 1, 2, 3])
def test_the_merge_goes_on_on_the_cpu_when_the_memory_of_the_device_is_used_up(
    models: SimpleNamespace,
    config: dict[str, Any],
    distribution: Callable[..., Path],
    gpu: Callable[..., list[int]],
    caplog: pytest.LogCaptureFixture,
    strategy: str,
    room: int | None,
) -> None:
    install(distribution, [("strategy", "rowwise", ROWWISE)])
    config["strategy"] = strategy
    if strategy == "task_arithmetic":
        config["base_model"] = str(models.base)
    expected, report = merged(config, models.folder / "cpu")
    made = gpu(room)
    with caplog.at_level(logging.WARNING, "modelmerger"):
        found, report_of_device = merged(config, models.folder / "gpu", low_memory_mode=True)

    assert (len(made) > 0) == (room != 0)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert report_of_device.counts == report.counts
    said = [record.message for record in caplog.records]
    assert said == ([] if room is None else ["cpu:0 is out of memory; the merge goes on on the CPU."])


def test_every_worker_leaves_the_device_and_it_is_said_once(
    models: SimpleNamespace, config: dict[str, Any], gpu: Callable[..., list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    expected, _ = merged(config, models.folder / "cpu")
    gpu(0)
    with caplog.at_level(logging.WARNING, "modelmerger"):
        found, _ = merged(config, models.folder / "gpu")

    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert len(caplog.records) == 1


def test_a_strategy_that_uses_up_a_device_of_its_own_is_named(
    models: SimpleNamespace, config: dict[str, Any], distribution: Callable[..., Path]
) -> None:
    source = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, 2))

@hookimpl
def merge_tensor(tensors):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
"""
    install(distribution, [("strategy", "greedy", source)])
    config["strategy"] = "greedy"
    before = directory_state(models.folder)

    with pytest.raises(PluginError, match=r"'greedy' from acme-merge 1.0 needs more memory of a device than there is"):
        modelmerger.merge(MergeConfig(**config))

    assert directory_state(models.folder).keys() - {".merged.modelmerger-staging"} >= before.keys()


@pytest.mark.parametrize(
    ("device_map", "gpus", "device"),
    [
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda"),
        ("balanced", 0, "cpu"),
        ("cpu", 2, "cpu"),
        ("cuda", 1, "cuda"),
        ("cuda:1", 2, "cuda:1"),
        ({"": "disk"}, 0, "cpu"),
        ({"model": 0, "lm_head": "cpu"}, 1, "cuda"),
    ],
)
def test_the_device_is_the_one_that_the_map_names(
    monkeypatch: pytest.MonkeyPatch, device_map: Any, gpus: int, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)

    assert slice_device(device_map) == torch.device(device)


@pytest.mark.parametrize(
    ("device_map", "gpus", "words"),
    [
        ("cuda", 0, "'cuda' is a GPU, and torch sees none. Give 'auto' or 'cpu'."),
        ("cuda:2", 2, "'cuda:2' is a GPU, and torch sees 2 of them, from cuda:0 on."),
        ({"model": 1}, 1, "1 is a GPU, and torch sees 1 of them"),
        ({"model": "cuda:1"}, 1, "'cuda:1' is a GPU"),
    ],
)
def test_a_gpu_that_is_not_there_is_said_before_anything_is_written(
    models: SimpleNamespace,
    config: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    device_map: Any,
    gpus: int,
    words: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    config["options"] = {"device_map": device_map}
    before = directory_state(models.folder)

    with pytest.raises(ConfigError, match=words.split("(", maxsplit=1)[0]):
        modelmerger.merge(MergeConfig(**config))

    assert directory_state(models.folder) == before
