"""What is collected for the page while a merge streams by: the right numbers, the same in every run, only where they are wanted."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modelmerger
import pytest
import torch
from blocks import contents, set_block
from conftest import random_tensors
from modelmerger import MemorySink, MergeConfig
from modelmerger.testing import Planned, plan_in_memory
from modelmerger_plugins.report_page.geometry import Geometry, kept, statistics, together

SHAPES = {"model.embed_tokens.weight": (3, 7), "model.layers.0.w": (301, 211), "model.norm.weight": (9,)}
WANTED = {"geometry": True}


def plan_of(strategy: str, weights: list[float], dtype: torch.dtype = torch.bfloat16, **options: Any) -> Planned:
    base = random_tensors(0, dtype, SHAPES)
    models = [random_tensors(seed, dtype, SHAPES, near=base) for seed in (1, 2)]
    for model in models:
        model["model.layers.0.w"][:40] = base["model.layers.0.w"][:40]  # what a fine-tuning left alone
    with_base = base if strategy == "task_arithmetic" else None
    return plan_in_memory(strategy, models, with_base, weights, options=WANTED | options)


def observed(staging: MemorySink) -> dict[str, Mapping[str, int]]:
    return kept({"observed": json.loads(json.dumps(staging.observed))})


def exact(tensors: list[torch.Tensor], origin: torch.Tensor) -> SimpleNamespace:
    a, b = [(tensor.double() - origin.double()).flatten() for tensor in tensors]
    return SimpleNamespace(
        norms={"0": float(a @ a), "1": float(b @ b)},
        dot=float(a @ b),
        both=int(((a != 0) & (b != 0)).sum()),
        opposed=int((a * b < 0).sum()),
    )


def source(seed: int) -> dict[str, torch.Tensor]:
    base = random_tensors(0, torch.bfloat16, SHAPES)
    model = random_tensors(seed, torch.bfloat16, SHAPES, near=base)
    model["model.layers.0.w"][:40] = base["model.layers.0.w"][:40]
    return model


def of_tensor(staging: MemorySink, name: str) -> Geometry:
    return together([observed(staging)[name]])


def test_task_vectors_are_measured_from_the_base() -> None:
    staging = plan_of("task_arithmetic", [0.7, 0.6]).stage()
    base, a, b = random_tensors(0, torch.bfloat16, SHAPES), source(1), source(2)
    for name in SHAPES:
        found = of_tensor(staging, name)
        expected = exact([a[name], b[name]], base[name])
        assert found.from_base
        assert found.values == base[name].numel()
        assert found.origin == pytest.approx(float((base[name].double() ** 2).sum()), rel=1e-5)
        assert {key: found.norms[key] for key in "01"} == pytest.approx(expected.norms, rel=1e-5)
        assert found.dots == {("0", "1"): pytest.approx(expected.dot, rel=1e-4, abs=1e-9)}
        assert found.both == {("0", "1"): expected.both}
        assert found.opposed == {("0", "1"): expected.opposed}
        change = 0.7 * (a[name].double() - base[name]) + 0.6 * (b[name].double() - base[name])
        assert found.norms["merged"] == pytest.approx(float((change**2).sum()), rel=1e-5)
    assert 0 < found.opposed["0", "1"] < found.both["0", "1"]


@pytest.mark.parametrize(("strategy", "weights"), [("weighted", [0.5, 0.5]), ("slerp", [1, 1])])
def test_without_a_base_the_merged_model_is_the_origin(strategy: str, weights: list[float]) -> None:
    staging = plan_of(strategy, weights).stage()
    for name in SHAPES:
        a, b = source(1)[name].double(), source(2)[name].double()
        found = of_tensor(staging, name)
        assert not found.from_base
        assert not found.both
        apart = found.norms["0"] + found.norms["1"] - 2 * found.dots["0", "1"]
        assert apart == pytest.approx(float(((a - b) ** 2).sum()), rel=1e-4)
        if strategy == "weighted":
            assert found.norms["0"] == pytest.approx(float(((a - b) ** 2).sum()) / 4, rel=1e-4)


def test_what_is_not_read_is_not_compared() -> None:
    with_one = plan_of("task_arithmetic", [0.7, 0.0]).stage()
    assert of_tensor(with_one, "model.layers.0.w").norms.keys() == {"0", "merged"}
    assert not of_tensor(with_one, "model.layers.0.w").dots
    without_base = plan_of("task_arithmetic", [0.5, 0.5]).stage()  # the base's coefficient is 1 − 0.5 − 0.5
    assert not of_tensor(without_base, "model.layers.0.w").from_base
    taken = plan_of("task_arithmetic", [0.7, 0.6], merge_embeddings=False).stage()
    assert observed(taken).keys() == SHAPES.keys() - {"model.embed_tokens.weight"}
    assert not observed(plan_of("weighted", [1.0, 0.0]).stage())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("strategy", "weights"), [("task_arithmetic", [0.7, 0.6]), ("slerp", [1, 1])])
def test_sums_are_the_same_whatever_threads_slices_and_blocks_that_were_made_before(
    monkeypatch: pytest.MonkeyPatch, strategy: str, weights: list[float], dtype: torch.dtype
) -> None:
    set_block(monkeypatch, 90_000)
    merge = plan_of(strategy, weights, dtype)
    expected = observed(merge.stage(workers=1, slice_elements=1 << 19))

    assert merge.plan.bytes_written > 90_000
    for workers, elements in ((3, 1 << 14), (2, 3 << 14)):
        assert observed(merge.stage(workers=workers, slice_elements=elements)) == expected
    begun = merge.stage(order=lambda units: units[:-2])
    assert observed(merge.stage(staged=begun, slice_elements=1 << 14)) == expected


def test_updates_of_adapters_are_not_taken_for_models(tmp_path: Path) -> None:
    examples = Path(__file__).parents[3] / "examples/dialects"
    config = {
        "strategy": "task_arithmetic",
        "base_model": str(examples / "base"),
        "models": [{"path": str(examples / "adapters" / name)} for name in ("gulf", "egyptian")],
        "options": WANTED,
    }
    folded = modelmerger.merge(MergeConfig(**{**config, "output_path": str(tmp_path / "folded")}))
    assert kept({"observed": folded.observed})
    updates = modelmerger.merge(
        MergeConfig(
            **{**(config | {"peft_config": {"merge_adapters": True}}), "output_path": str(tmp_path / "updates")}
        )
    )
    assert not kept({"observed": updates.observed})


def test_collecting_changes_no_bit_of_the_output() -> None:
    for strategy in ("task_arithmetic", "slerp"):
        plain = plan_of(strategy, [0.7, 0.6], geometry=False).stage()
        assert contents(plan_of(strategy, [0.7, 0.6]).stage()) == contents(plain)
        assert not observed(plain)


def test_values_that_are_not_finite_have_no_geometry() -> None:
    good, bad = torch.ones(5), torch.tensor([1.0, 2.0, float("nan"), 0.0, 1.0])
    for tensors in ([good, 2 * good, bad], [good, 1e30 * good]):
        assert statistics(tensors, good, range(len(tensors)), 3) == {"not finite": 5}
    part = {
        f"plugin report_page: {key}": value for key, value in (statistics([good, good], good, [0, 1], 3) or {}).items()
    }
    assert kept({"observed": {"w": part}}).keys() == {"w"}
    assert not kept({"observed": {"w": part | {"plugin report_page: not finite": 5}}})
    assert not kept({"observed": {"w": {"plugin watch: sum": 1.5}}})
    assert not kept({})


def test_layers_add_up_to_the_geometry_of_their_tensors_in_one() -> None:
    parts = [[torch.randn(50, generator=torch.Generator().manual_seed(10 * i + k)) for k in range(3)] for i in range(2)]
    whole = [torch.cat([parts[i][k] for i in range(2)]) for k in range(3)]
    apart = [statistics(part, part[0], [0, 1, 2], 2) for part in parts]
    in_one = statistics(whole, whole[0], [0, 1, 2], 2)
    assert apart[0] is not None and apart[1] is not None and in_one is not None
    left, right = together([apart[0], apart[1]]), together([in_one])
    assert left.norms == pytest.approx(right.norms)
    assert left.opposed == right.opposed
    assert left.values == 100


@pytest.mark.parametrize(
    ("validation", "options", "collected"),
    [
        ({}, {}, False),
        ({"run_tests": False}, {}, False),
        ({"run_tests": False}, {"geometry": True}, True),
    ],
)
def test_it_is_collected_where_it_is_wanted(
    models: SimpleNamespace,
    config: dict[str, Any],
    validation: dict[str, Any],
    options: dict[str, Any],
    collected: bool,
) -> None:
    report = modelmerger.merge(MergeConfig(**(config | {"validation": validation, "options": options})))
    manifest = json.loads((Path(report.output) / "modelmerger.json").read_bytes())
    assert bool(kept(manifest)) == collected
    assert manifest["observed"] == report.observed
    if collected:
        assert kept(manifest).keys() == models.tensors["a"].keys()
