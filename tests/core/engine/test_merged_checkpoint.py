"""A merge as a checkpoint: any elements of it, from any thread, in bounded memory; and made by anyone."""

import importlib
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import random_tensors, write_model
from modelmerger import (
    Checkpoint,
    ConfigError,
    InputError,
    MergeConfig,
    MergedCheckpoint,
    ModelMerger,
    NumericError,
    TensorInfo,
    Traits,
    hookimpl,
    merge,
)
from modelmerger.planning.slices import MEASURED
from modelmerger.testing import merge_in_memory, plan_in_memory
from modelmerger.testing.memory import MemoryCheckpoint
from modelmerger.values.checkpoint import merges_among, models_behind
from safetensors.torch import load_file

from tests.core.plugging import install
from tests.core.test_nested_merges import INSTALLED

SHAPE = (50, 70)
KINDS = ["weighted", "slerp", "rows", "whole", "measured", "rounds"]


@pytest.fixture
def strategies(distribution: Callable[..., Path]) -> None:
    install(distribution, [("strategy", name, source) for name, source in INSTALLED.items()])


def models(*seeds: int, shape: tuple[int, ...] = SHAPE, dtype: torch.dtype = torch.bfloat16) -> list[MemoryCheckpoint]:
    return [MemoryCheckpoint(f"m{seed}", random_tensors(seed, dtype, {"w": shape, "b": (7,)})) for seed in seeds]


def elements(checkpoint: Checkpoint, name: str, start: int, stop: int) -> torch.Tensor:
    buffer = bytearray(checkpoint.tensors[name].span(start, stop)[1])
    checkpoint.read(name, start, stop, memoryview(buffer))
    return torch.frombuffer(buffer, dtype=torch.float32)


@pytest.mark.usefixtures("strategies")
@pytest.mark.parametrize("strategy", KINDS)
def test_any_elements_are_those_of_the_whole(strategy: str) -> None:
    sources = models(1, 2)
    soup = MergedCheckpoint.of("soup", strategy, sources, weights=[0.7, 0.3])
    wanted = merge_in_memory(strategy, models(1, 2), weights=[0.7, 0.3], options={"torch_dtype": "float32"})[
        "w"
    ].reshape(-1)
    assert soup.tensors["w"] == TensorInfo("F32", SHAPE, "BF16")
    for start, stop in ((0, 3500), (1, 2), (69, 71), (70, 140), (333, 1234), (3499, 3500), (5, 5)):
        if stop > start:
            assert torch.equal(elements(soup, "w", start, stop), wanted[start:stop])
        else:
            soup.read("w", start, stop, memoryview(bytearray()))


@pytest.mark.usefixtures("strategies")
@pytest.mark.parametrize("strategy", KINDS)
def test_from_many_threads_each_block_is_measured_once(strategy: str) -> None:
    sources = models(1, 2, shape=(600, 700))
    soup = MergedCheckpoint.of("soup", strategy, sources, weights=[0.7, 0.3])
    given = models(1, 2, shape=(600, 700))
    wanted = merge_in_memory(strategy, given, weights=[0.7, 0.3], options={"torch_dtype": "float32"})["w"].reshape(-1)
    barrier = threading.Barrier(4)

    def read(number: int) -> bool:
        barrier.wait()
        return all(
            torch.equal(elements(soup, "w", start, start + 1000), wanted[start : start + 1000])
            for start in range(number * 1000, 420_000, 40_000)
        )

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, range(4)))
    if strategy in ("slerp", "measured"):
        measured = [read for read in sources[0].reads if read[0] == "w" and read[2] - read[1] > 1000]
        assert sorted(measured) == [("w", 0, MEASURED), ("w", MEASURED, 420_000)]


@pytest.mark.usefixtures("strategies")
@pytest.mark.parametrize(("strategy", "read"), [("weighted", (75, 80)), ("rows", (70, 140)), ("whole", (0, 3500))])
def test_no_more_is_read_and_announced_than_is_needed(strategy: str, read: tuple[int, int]) -> None:
    announced: list[tuple[str, int, int]] = []

    class Watched(MemoryCheckpoint):
        def prefetch(self, tensor: str, start: int, stop: int) -> None:
            announced.append((tensor, start, stop))

    source = Watched("m", random_tensors(1, shapes={"w": SHAPE}))
    soup = MergedCheckpoint.of("soup", strategy, [source], weights=[2.0])
    soup.prefetch("w", 75, 80)
    assert source.reads == []
    assert announced == [("w", *read)]
    elements(soup, "w", 75, 80)
    assert source.reads == [("w", *read)]


@pytest.mark.usefixtures("strategies")
def test_what_is_kept_of_statistics_is_bounded_and_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    from modelmerger.engine import on_demand

    monkeypatch.setattr(on_demand, "KEPT", 20)
    (source,) = models(1)
    soup = MergedCheckpoint.of("soup", "measured", [source])
    first = {name: elements(soup, name, 0, soup.tensors[name].elements) for name in ("w", "b")}
    assert all(torch.equal(elements(soup, name, 0, len(value)), value) for name, value in first.items())
    kept = soup._making._engine._measuring._kept  # type: ignore[union-attr]  # what is bounded
    assert sum(total.nbytes for totals in kept.values() for total in totals) <= 20


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ({"weights": [1.0]}, ["weights: must be one a model: 1 given for 2 models"]),
        ({"weights": []}, ["weights: must be one a model: 0 given for 2 models"]),
        ({"model_options": [{}, {}, {}]}, ["model_options: must be one a model: 3 given for 2 models"]),
        (
            {"models": ["m/A"], "base": "m/B"},
            [
                f"{key}: must be a checkpoint, as `ModelMerger.load_models` opens it, got str"
                for key in ("models[0].path", "base_model")
            ],
        ),
        (
            {"options": {"executor": "threads", "overwrite": True, "preserve_tokenizer": True, "seed": 3}},
            [
                f"options: '{key}' is of the whole run. Give it in the options of the outermost merge"
                for key in ("executor", "overwrite", "preserve_tokenizer")
            ],
        ),
        ({"models": models(1, 1)}, ["models: two models are named 'm1'. Give each a name of its own"]),
    ],
    ids=str,
)
def test_what_no_merge_within_another_can_have_is_refused(arguments: dict[str, Any], lines: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        MergedCheckpoint.of("soup", "weighted", **{"models": models(1, 2), **arguments})
    assert caught.value.lines() == lines


def test_bytes_to_read_add_up_over_any_parts() -> None:
    soup = MergedCheckpoint.of("soup", "slerp", models(1, 2))
    stew = MergedCheckpoint.of("stew", "weighted", [soup, *models(3)])
    once = 3500 * 2
    assert soup.bytes_to_read("w", 0, 3500) == 4 * once  # two models, twice: to be measured, and to be merged
    assert stew.bytes_to_read("w", 0, 3500) == 5 * once
    cuts = [0, 1, 2, 333, 334, 3499, 3500]
    assert sum(stew.bytes_to_read("w", *part) for part in zip(cuts, cuts[1:], strict=False)) == 5 * once
    assert plan_in_memory("weighted", [stew]).plan.bytes_read == 5 * (once + 14)


def test_what_a_merge_is_made_of_is_known() -> None:
    a, b, c = models(1, 2, 3)
    soup = MergedCheckpoint.of("soup", "weighted", [a, b])
    stew = MergedCheckpoint.of("stew", "weighted", [soup, c])
    assert merges_among([stew, soup, a]) == [soup, stew]
    assert models_behind([stew, soup, a]) == [a, b, c]
    assert stew.merge is not None
    assert stew.content == stew.merge.digest
    assert [model.merge for model in stew.merge.models] == [soup.merge, None]


def test_the_plan_counts_the_memory_of_every_level_once() -> None:
    plain = plan_in_memory("weighted", models(1, 2), options={"low_memory_mode": True}).plan
    soup = MergedCheckpoint.of("soup", "weighted", models(1, 2))
    nested = plan_in_memory("weighted", [soup, soup], options={"low_memory_mode": True}).plan
    assert soup.merge is not None
    assert nested.memory - plain.memory == soup.merge.worker_memory > 0


def test_two_levels_of_a_large_tensor_never_hold_it(tmp_path: Path) -> None:
    """32 MiB of float32 a tensor: no level needs more than some slices."""
    shape = (1 << 11, 1 << 12)
    paths = [
        write_model(tmp_path / str(seed), {"w": torch.full(shape, float(seed), dtype=torch.bfloat16)}, None)
        for seed in range(4)
    ]
    soup = {"strategy": "slerp", "models": [{"path": str(path)} for path in paths[:2]]}
    stew = {"strategy": "weighted", "models": [{"merge": soup}, {"path": str(paths[2])}]}
    given = {
        "strategy": "weighted", "models": [{"merge": stew}, {"path": str(paths[3])}], "output_path": str(tmp_path / "merged"),
        "options": {"low_memory_mode": True},
    }  # fmt: skip
    import modelmerger.engine.arithmetic as module

    made: list[int] = []
    empty = torch.empty

    def counted(*size: Any, **how: Any) -> torch.Tensor:
        tensor = empty(*size, **how)
        made.append(tensor.numel() * tensor.itemsize)
        return tensor

    patch = pytest.MonkeyPatch()
    patch.setattr(module.torch, "empty", counted)
    try:
        merge(MergeConfig(**given))
    finally:
        patch.undo()
    assert sum(made) < (16 << 20)
    merged = load_file(tmp_path / "merged" / "model.safetensors")["w"]
    assert merged.dtype == torch.bfloat16
    assert merged.unique().numel() == 1


def test_of_one_that_is_renamed_the_numbers_are_measured_once(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_model(tmp_path / str(seed), random_tensors(seed))
    soup = {"strategy": "slerp", "models": [{"path": str(tmp_path / "1")}, {"path": str(tmp_path / "2")}]}
    models = [{"path": "soup", "name": "first"}, {"path": "soup", "name": "second"}]
    merger = ModelMerger(MergeConfig(strategy="weighted", models=models, merges={"soup": soup}))
    first, second = merger.load_models().values()
    assert (first.name, second.name) == ("first", "second")
    name = "model.layers.0.mlp.weight"
    assert torch.equal(elements(first, name, 0, 640), elements(second, name, 0, 640))
    assert first._making is second._making  # type: ignore[attr-defined]  # what they share


def test_anyone_can_make_one() -> None:
    a, b, base = (random_tensors(seed) for seed in (1, 2, 3))
    named = [MemoryCheckpoint("a", a), MemoryCheckpoint("b", b)]
    told = [{"operation": "subtract"}, {}]
    made = MergedCheckpoint.of(
        "soup", "task_arithmetic", named, MemoryCheckpoint("base", base), [0.3, 0.4], told, {"scaling_factor": 0.5}
    )
    options = {"scaling_factor": 0.5, "torch_dtype": "float32"}
    wanted = merge_in_memory("task_arithmetic", [a, b], base, [0.3, 0.4], told, options)
    for name, value in wanted.items():
        assert torch.equal(elements(made, name, 0, value.numel()), value.reshape(-1))
    assert made.place == made.name == "soup"


def test_no_plugin_views_its_models(distribution: Callable[..., Path]) -> None:
    """Who makes one has viewed them, or has it viewed as a whole by the merge that it is for."""
    source = """
from modelmerger import CheckpointView, hookimpl

@hookimpl
def view_models(checkpoints):
    return [CheckpointView(model, {"w": "w"}) for model in checkpoints]

@hookimpl
def adjust_config():
    raise ValueError("adjusted")
"""
    install(distribution, [("plugin", "narrow", source)])
    sources = models(1, 2)
    soup = MergedCheckpoint.of("soup", "weighted", sources)
    assert list(soup.tensors) == list(sources[0].tensors) != ["w"]
    assert list(soup.sources) == list(sources)


def test_what_is_wrong_is_said_of_it() -> None:
    (a,) = models(1)
    with pytest.raises(InputError, match="'m1' has this tensor and 'm4' lacks it"):
        MergedCheckpoint.of("soup", "weighted", [a, MemoryCheckpoint("m4", {"w": torch.zeros(SHAPE)})])
    opposite = MemoryCheckpoint("m5", {"w": -a_numbers(), "b": torch.ones(7)})
    soup = MergedCheckpoint.of(
        "soup", "slerp", [MemoryCheckpoint("m6", {"w": a_numbers(), "b": torch.ones(7)}), opposite]
    )
    with pytest.raises(NumericError, match=r"^soup: w: the tensors point in opposite directions"):
        elements(soup, "w", 0, 1)


def a_numbers() -> torch.Tensor:
    return torch.arange(1.0, 3501.0).view(SHAPE)


PLUGIN = """
from modelmerger import MergedCheckpoint, hookimpl, ModelReference
from attrs import evolve

@hookimpl(tryfirst=True)
def load_model(reference, context):
    \"\"\"half:A:B is the mean of the models at A and B.\"\"\"
    if ":" not in reference.path:
        return None
    paths = reference.path.rsplit("half:")[-1].split(":")
    models = [context.open_model(ModelReference(path, path, reference.where)) for path in paths]
    return MergedCheckpoint.of(reference.name, "weighted", models)
"""


def test_a_plugin_makes_one(
    distribution: Callable[..., Path], models: SimpleNamespace, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(distribution, [("plugin", "halves", PLUGIN)])
    monkeypatch.chdir(models.folder)
    config["models"] = [{"path": "half:a:b", "name": "half", "weight": 0.5}, {"path": "base", "weight": 0.5}]
    merge(MergeConfig(**config))
    a, b, base = (models.tensors[name] for name in ("a", "b", "base"))
    for name, value in load_file(models.output / "model.safetensors").items():
        expected = a[name].double() / 4 + b[name].double() / 4 + base[name].double() / 2
        torch.testing.assert_close(value.double(), expected, rtol=2**-8 * 1.01, atol=1e-9)
    plan = ModelMerger(MergeConfig(**{**config, "output_path": str(models.folder / "other")})).plan()
    assert plan.models[0].merge is not None
    assert [model.name for model in plan.models[0].merge.models] == ["a", "b"]


class Halved:
    traits = Traits(models=(1, 1))

    @hookimpl
    def merge_tensor(self, tensors: Any) -> torch.Tensor:
        half: torch.Tensor = tensors[0] * 0.5
        return half


def test_a_strategy_of_this_process_is_given_as_itself() -> None:
    (source,) = models(1)
    soup = MergedCheckpoint.of("soup", Halved(), [source])
    found = elements(soup, "w", 0, 3500)
    halved = random_tensors(1, torch.bfloat16, {"w": SHAPE, "b": (7,)})["w"].float().flatten() * 0.5
    torch.testing.assert_close(found, halved, rtol=0, atol=0)


HALVING = """
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, 1))

@hookimpl
def merge_tensor(tensors):
    return tensors[0] * 0.5
"""


@pytest.mark.parametrize("how", ["module", "file"])
def test_a_strategy_that_is_not_installed_is_given_as_a_module_or_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """As `--plugin` takes it."""
    (tmp_path / "half_of_one.py").write_text(HALVING)
    monkeypatch.syspath_prepend(str(tmp_path))
    strategy = importlib.import_module("half_of_one") if how == "module" else tmp_path / "half_of_one.py"
    (source,) = models(1)
    soup = MergedCheckpoint.of("soup", strategy, [source])
    monkeypatch.delitem(sys.modules, "half_of_one", raising=False)
    found = elements(soup, "w", 0, 3500)
    halved = random_tensors(1, torch.bfloat16, {"w": SHAPE, "b": (7,)})["w"].float().flatten() * 0.5
    torch.testing.assert_close(found, halved, rtol=0, atol=0)
    assert MergedCheckpoint.of("soup", strategy, [source]).content == soup.content


def test_a_file_that_is_no_strategy_is_refused(tmp_path: Path) -> None:
    (tmp_path / "looks_on.py").write_text(
        "from modelmerger import hookimpl\n\n@hookimpl\ndef check_config():\n    return []\n"
    )
    with pytest.raises(ConfigError, match=r"looks_on\.py: is no strategy"):
        MergedCheckpoint.of("soup", tmp_path / "looks_on.py", models(1))
    with pytest.raises(ConfigError, match=r"none\.py"):
        MergedCheckpoint.of("soup", tmp_path / "none.py", models(1))
