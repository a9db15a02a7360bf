"""What a composition depends on is in the plan; and the strategy can be asked for its coefficients where it has some."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from modelmerger import ConfigError, Donor, InputChangedError, MergeConfig, TensorSelection, Watch, merge
from modelmerger.testing import MemoryCheckpoint, plan_in_memory
from modelmerger.values.file_identity import identify

from tests.core.plugging import install

Distribution = Callable[..., Path]
SOURCE = """
from attrs import evolve
from modelmerger import Composition, Traits, hookimpl

{traits}
TELL = {}
ASKED = []

@hookimpl
def compose_model(checkpoints, coefficients):
    ASKED.append(coefficients)
    told = dict(TELL)
    return Composition(told.pop("checkpoint", checkpoints[0]), **told) if TELL else {nothing}
"""
TRAITS = "traits = Traits()"


def composing(distribution: Distribution, kind: str = "strategy") -> ModuleType:
    """An installed plugin that composes what its `TELL` says, and keeps what it is `ASKED`."""
    source = SOURCE.replace("{traits}", TRAITS if kind == "strategy" else "")
    source = source.replace("{nothing}", "Composition(checkpoints[0])" if kind == "strategy" else "None")
    (module,) = install(distribution, [(kind, "composing", source)])
    return importlib.import_module(module)


def test_the_digest_tells_compositions_apart_that_the_config_does_not(distribution: Distribution) -> None:
    module = composing(distribution)
    model = MemoryCheckpoint("model_0", {"v": torch.ones(3), "w": torch.zeros(3)}, {"depth": 1})
    told: list[dict[str, Any]] = [
        {"checkpoint": TensorSelection("s", {"t": (model, "v")})},
        {"checkpoint": TensorSelection("s", {"t": (model, "w")})},
        {"checkpoint": TensorSelection("s", {"t": (model, "v")}, Donor(config={"depth": 2}))},
        {"checkpoint": TensorSelection("s", {"t": (model, "v")}), "writes": "part"},
        {"checkpoint": TensorSelection("s", {"t": (model, "v")}), "dtypes": {"t": "BF16"}},
        {"checkpoint": TensorSelection("s", {"t": (model, "v")}), "documents": {"x": b"1"}},
        {"checkpoint": TensorSelection("s", {"t": (model, "v")}), "documents": {"x": b"2"}},
    ]
    plans = []
    for module.TELL in (*told, told[0]):
        plans.append(plan_in_memory("composing", [model]).plan)
    assert plans[0].digest == plans[-1].digest
    assert len({plan.digest for plan in plans}) == len(told)


def test_the_plan_says_what_reading_takes(distribution: Distribution) -> None:
    module = composing(distribution)
    models = [{"w": torch.ones(2, 3)}]
    module.TELL = {"dtypes": {"w": "BF16"}}
    frugal = plan_in_memory("composing", models).plan
    module.TELL = {"dtypes": {"w": "BF16"}, "memory": 1 << 30}
    plan = plan_in_memory("composing", models).plan
    assert plan.memory - frugal.memory == plan.workers << 30
    assert (plan.bytes_read, [t.dtype for t in plan.tensors], [t.action for t in plan.tensors]) == (
        24,
        ["BF16"],
        ["take"],
    )


def test_weights_are_in_one_file_where_they_must_be(distribution: Distribution) -> None:
    module = composing(distribution)
    models = [{name: torch.ones(1000) for name in "abc"}]
    files = []
    for module.TELL in ({"sharded": True}, {"sharded": False, "stem": "part"}):
        plan = plan_in_memory("composing", models, options={"max_shard_size": 5000}).plan
        files.append([file.name for file in plan.layout.files])
    assert len(files[0]) == 3
    assert files[1] == ["part.safetensors"]


def test_a_file_that_a_composition_alone_reads_is_looked_at_again(
    distribution: Distribution, models: SimpleNamespace, config: dict[str, Any]
) -> None:
    module = composing(distribution)
    extra = models.folder / "extra"
    extra.write_bytes(b"1")
    numbers = MemoryCheckpoint("extra", {"w": torch.ones(3)})
    numbers.files = (identify(str(extra), extra.stat()),)
    module.TELL = {"checkpoint": numbers}
    config["strategy"] = "composing"

    def change(name: str, path: Path) -> None:
        extra.write_bytes(b"22")

    with pytest.raises(InputChangedError, match="extra"):
        merge(MergeConfig(**config), Watch(step=change))
    assert not models.output.exists()


def test_coefficients_are_for_strategies_that_have_some_and_merges_with_a_base(distribution: Distribution) -> None:
    module = composing(distribution, "plugin")
    models = [{"model.layers.0.w": torch.ones(3)}, {"model.layers.0.w": torch.zeros(3)}]
    plan_in_memory("weighted", models)
    plan_in_memory("weighted", models, base=models[0])
    assert [asked is None for asked in module.ASKED] == [True, False]
    with pytest.raises(ConfigError, match=r"\*other\*"):
        plan_in_memory("weighted", models, models[0], weights=[{"*other*": 1, "default": 1}, 1])
    assert len(module.ASKED) == 3


def test_coefficients_are_those_of_each_changed_tensor(distribution: Distribution) -> None:
    module = composing(distribution, "plugin")
    names = ("model.layers.0.w", "model.layers.1.w", "lm_head.weight")
    base = MemoryCheckpoint("base", {name: torch.ones(2, 2) for name in names})
    models = [MemoryCheckpoint(f"model_{i}", {name: torch.ones(2, 2) for name in names}) for i in range(2)]
    for model in models:
        model.changes = names
    weights = [[1.0, 2.0], 3.0]
    plan_in_memory(
        "weighted", models, base, weights=weights, options={"normalize_weights": False, "merge_lm_head": False}
    )
    found = module.ASKED[-1]()
    assert found.kept == {"lm_head.weight"}
    asked = [found(f"model.layers.{i}.w", (2, 2), list) for i in (0, 1)]
    assert asked == [(1.0, 3.0), (2.0, 3.0)]
