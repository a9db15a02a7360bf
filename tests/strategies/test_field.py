"""model_stock, nuslerp, multislerp, karcher, geometric_median, nearswap, arcee_fusion, sce, ram, ramplus_tl and passthrough
against float64 references on whole tensors, in slices, and where the formulas end."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from blocks import set_block
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from modelmerger import ConfigError, MergeConfig, NumericError
from modelmerger.testing import merge_in_memory, plan_in_memory

from tests.strategies import field_references as reference

SHAPES: dict[str, tuple[int, ...]] = {"one": (1,), "vector": (97,), "matrix": (16, 24), "kernel": (4, 3, 2, 5)}
Tensors = dict[str, torch.Tensor]
BASED = {
    "model_stock": lambda u, w: reference.model_stock(u),
    "nuslerp": lambda u, w: reference.nuslerp(u[:2], w[1] / (w[0] + w[1])),
    "multislerp": reference.multislerp,
    "nearswap": lambda u, w: np.clip(u[0], -0.02, 0.02),
    "sce": lambda u, w: reference.sce(u, 0.3),
    "ram": lambda u, w: reference.ram(u, 0.05),
    "ramplus_tl": lambda u, w: reference.ram(u, 0.05, 0.3, 0.5),
}
ALONE = {
    "karcher": reference.karcher,
    "geometric_median": reference.geometric_median,
    "passthrough": lambda t, w: -0.5 * t[0],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "nearswap": {"t": 0.02},
    "sce": {"density": 0.3},
    "ram": {"epsilon": 0.05},
    "ramplus_tl": {"epsilon": 0.05, "r": 0.3, "alpha": 0.5},
    "passthrough": {"scale": -0.5},
}
COUNTS = {"nuslerp": 2, "nearswap": 1, "passthrough": 1, "arcee_fusion": 1}
UNWEIGHED = ("model_stock", "nearswap", "arcee_fusion", "sce", "ram", "ramplus_tl", "passthrough")
EVERY = [*BASED, *ALONE, "arcee_fusion"]
ALLOWED = {"geometric_median": 1e-6, "karcher": 1e-7}
"""Of the largest magnitude, as both end their steps at some point; the others are exact to float64."""


def model(seed: int, near: Tensors | None = None, scale: float = 0.1) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}
    return {name: (value * (scale if near else 1) + (near[name] if near else 0)) for name, value in made.items()}


def tuned(count: int, seed: int = 1) -> tuple[Tensors, list[Tensors]]:
    """A base, and models that share a part of what they change."""
    base = model(0)
    shared = model(seed, base)
    return base, [model(seed + 1 + i, shared, 0.08) for i in range(count)]


def arguments(strategy: str, weights: Sequence[float], seed: int = 1) -> dict[str, Any]:
    base, models = tuned(COUNTS.get(strategy, 3), seed)
    weighed = {} if strategy in UNWEIGHED else {"weights": list(weights)[: len(models)]}
    return {
        "strategy": strategy,
        "models": models,
        "base": None if strategy in ALONE else base,
        "options": OPTIONS.get(strategy, {}),
        **weighed,
    }


def expected(strategy: str, weights: Sequence[float], seed: int = 1) -> dict[str, np.ndarray]:
    base, models = tuned(COUNTS.get(strategy, 3), seed)
    found = {}
    for name in SHAPES:
        start, tensors = base[name].numpy(), [m[name].numpy() for m in models]
        if strategy == "arcee_fusion":
            found[name] = reference.arcee_fusion(tensors[0], start)
        elif strategy in ALONE:
            found[name] = ALONE[strategy](tensors, weights)
        else:
            found[name] = start + BASED[strategy]([tensor - start for tensor in tensors], weights)
    return found


def assert_near(merged: Tensors, exact: dict[str, np.ndarray], allowed: float) -> None:
    for name, tensor in merged.items():
        error = np.abs(tensor.double().numpy() - exact[name]).max()
        assert error <= allowed * np.abs(exact[name]).max(), name


@pytest.mark.parametrize("strategy", EVERY)
@given(weights=st.lists(st.floats(0.1, 2), min_size=3, max_size=3), seed=st.integers(1, 50))
@settings(max_examples=5, deadline=None)
def test_merges_are_the_formula(strategy: str, weights: list[float], seed: int) -> None:
    if (
        strategy == "geometric_median"
    ):  # of a model with half of the weight and others on a line, any point between is one
        assume(abs(2 * max(weights) - sum(weights)) > 0.1)
    merged = merge_in_memory(**arguments(strategy, weights, seed))
    assert_near(merged, expected(strategy, weights, seed), ALLOWED.get(strategy, 1e-11))


def test_a_geometric_median_that_is_not_unique_has_the_least_sum_of_distances() -> None:
    """One model holds half of the weight: of single numbers, every point between it and the next is a median."""
    weights = [2.0, 1.9, 0.1]
    merged = merge_in_memory(**arguments("geometric_median", weights, 16))
    exact, (_, models) = expected("geometric_median", weights, 16), tuned(3, 16)
    for name, tensor in merged.items():
        found, least = (
            sum(w * np.linalg.norm(point - m[name].numpy()) for w, m in zip(weights, models, strict=True))
            for point in (tensor.numpy(), exact[name])
        )
        assert found <= least * (1 + 1e-9), name


@pytest.mark.parametrize("strategy", EVERY)
def test_neither_slices_nor_workers_nor_order_change_a_bit(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelmerger.planning.measured.MEASURED", 64)
    monkeypatch.setattr("modelmerger.engine.measuring.BLOCKS_A_UNIT", 2)
    set_block(monkeypatch, 1 << 10)
    given = arguments(strategy, [1, 2, 0.5])
    given["options"] = {**given["options"], "max_shard_size": 2000}
    merged = plan_in_memory(**given).merge()
    cut = plan_in_memory(**given).merge(slice_elements=33, workers=3, order=lambda units: list(reversed(units)))
    assert all(torch.equal(merged[name], cut[name]) for name in merged)
    assert_near(merged, expected(strategy, [1, 2, 0.5]), ALLOWED.get(strategy, 1e-11))


@pytest.mark.parametrize("strategy", EVERY)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_every_dtype_is_written_finite_and_near(strategy: str, dtype: torch.dtype) -> None:
    given = arguments(strategy, [1, 1, 1])
    given["models"] = [{name: value.to(dtype) for name, value in m.items()} for m in given["models"]]
    given["base"] = given["base"] and {name: value.to(dtype) for name, value in given["base"].items()}
    merged = merge_in_memory(**given)
    wide = {**given, "models": [{n: v.double() for n, v in m.items()} for m in given["models"]]}
    wide["base"] = given["base"] and {name: value.double() for name, value in given["base"].items()}
    exact = merge_in_memory(**wide)
    for name, tensor in merged.items():
        assert tensor.dtype == dtype
        close = torch.isclose(tensor.double(), exact[name], rtol=2 * torch.finfo(dtype).eps, atol=1e-5)
        assert close.double().mean() >= 0.98, name  # an element at a threshold may fall to the other side


@pytest.mark.parametrize("strategy", EVERY)
def test_scalars_empty_tensors_and_zeros(strategy: str) -> None:
    """What no model changes is the base; of zeros there is no direction, and they stay zeros."""
    count = COUNTS.get(strategy, 3)
    whole = {
        "scalar": torch.tensor(0.5), "empty": torch.zeros(0), "rows": torch.zeros(0, 3), "none": torch.zeros(4, 4),
        "same": torch.randn(5, 6, generator=torch.Generator().manual_seed(3)), "one": torch.tensor([2.0]),
    }  # fmt: skip
    merged = merge_in_memory(strategy, [whole] * count, None if strategy in ALONE else whole)
    for name, tensor in whole.items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-6, atol=0)


@pytest.mark.parametrize("strategy", [s for s in EVERY if s != "arcee_fusion" and s != "nearswap"])
def test_equal_models_are_that_model(strategy: str) -> None:
    base, (one,) = tuned(1)
    merged = merge_in_memory(strategy, [one] * COUNTS.get(strategy, 3), None if strategy in ALONE else base)
    for name, tensor in one.items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("strategy", ["multislerp", "karcher", "geometric_median", "sce", "ram", "ramplus_tl"])
def test_one_model_is_itself(strategy: str) -> None:
    base, (one,) = tuned(1)
    options = {"epsilon": 0, "r": 0} if strategy == "ramplus_tl" else {"epsilon": 0} if strategy == "ram" else {}
    merged = merge_in_memory(strategy, [one], None if strategy in ALONE else base, options=options)
    for name, tensor in one.items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "strategy", ["model_stock", "multislerp", "karcher", "geometric_median", "sce", "ram", "ramplus_tl"]
)
def test_the_order_of_the_models_does_not_matter(strategy: str) -> None:
    given = arguments(strategy, [1, 2, 0.5])
    turned = {**given, "models": given["models"][::-1]}
    if "weights" in given:
        turned["weights"] = given["weights"][::-1]
    merged, other = merge_in_memory(**given), merge_in_memory(**turned)
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("strategy", ["nuslerp", "multislerp", "karcher", "geometric_median"])
@pytest.mark.parametrize("weights", [[-1.0, 0.5], [1.0, -1.0], [0.0, 0.0]])
def test_weights_that_make_no_sense_are_refused_with_their_values(strategy: str, weights: list[float]) -> None:
    with pytest.raises(ConfigError) as refused:
        MergeConfig(
            strategy=strategy,
            base_model="./c",
            models=[{"path": path, "weight": weight} for path, weight in zip(("./a", "./b"), weights, strict=True)],
        )
    (line,) = refused.value.lines()
    assert line.startswith("models: the weights ")
    assert all(f"{weight:g}" in line for weight in weights)
    assert "not negative and not " in line


@pytest.mark.parametrize("strategy", ["nuslerp", "multislerp", "karcher", "geometric_median"])
def test_a_model_of_weight_0_does_not_count(strategy: str) -> None:
    base, models = tuned(2)
    merged = merge_in_memory(strategy, models, None if strategy in ALONE else base, weights=[0, 3])
    for name, tensor in models[1].items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("strategy", UNWEIGHED)
def test_a_strategy_that_weighs_nothing_refuses_weights(strategy: str) -> None:
    paths = ("./a", "./b")[: min(2, COUNTS.get(strategy, 2))]
    with pytest.raises(ConfigError) as refused:
        MergeConfig(strategy=strategy, base_model="./c", models=[{"path": path, "weight": 0.5} for path in paths])
    assert refused.value.lines() == [
        f"models[{i}].weight: {strategy} does not weigh models, got 0.5. Leave it out" for i in range(len(paths))
    ]


def opposite() -> tuple[Tensors, list[Tensors]]:
    base = {"w": torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)}
    step = torch.randn(4, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return base, [{"w": base["w"] + step}, {"w": base["w"] - step}]


@pytest.mark.parametrize(("strategy", "said"), [
    ("nuslerp", "points in opposite directions (cosine -1.0"), ("multislerp", "of what the models change of the base cancel"),
])  # fmt: skip
def test_opposite_task_vectors_have_no_direction(strategy: str, said: str) -> None:
    base, models = opposite()
    with pytest.raises(NumericError) as failed:
        merge_in_memory(strategy, models, base)
    assert str(failed.value).startswith("w: ")
    assert said in str(failed.value)


def test_opposite_models_have_no_karcher_mean() -> None:
    with pytest.raises(NumericError, match=r"^w: the directions of the models cancel: their mean has the length .*"):
        merge_in_memory("karcher", [{"w": torch.ones(4)}, {"w": -torch.ones(4)}])
    first, second = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])
    with pytest.raises(NumericError, match="a model points away from the mean of all"):
        merge_in_memory("karcher", [{"w": w} for w in (first, second, -(first + second))], weights=[1, 1, 0.1])


def test_opposite_task_vectors_leave_the_base_in_model_stock_and_their_mean_elsewhere() -> None:
    base, models = opposite()
    assert torch.equal(merge_in_memory("model_stock", models, base)["w"], base["w"])
    for strategy in ("geometric_median", "ram"):
        merged = merge_in_memory(strategy, models, None if strategy in ALONE else base)["w"]
        torch.testing.assert_close(merged, base["w"], rtol=0, atol=1e-12)
    step = models[0]["w"] - base["w"]  # a sum of 0 counts as positive, here and in mergekit
    rounding = (step + (models[1]["w"] - base["w"])) < 0
    merged = merge_in_memory("sce", models, base)["w"] - base["w"]
    torch.testing.assert_close(merged, torch.where(rounding, -abs(step), abs(step)), rtol=0, atol=1e-12)


def test_a_task_vector_of_zeros() -> None:
    base, (one,) = tuned(1)
    for name, tensor in merge_in_memory("model_stock", [one, base], base).items():
        assert torch.equal(tensor, base[name])
    for strategy in ("nuslerp", "multislerp"):
        for name, tensor in merge_in_memory(strategy, [one, base], base, weights=[3, 1]).items():
            torch.testing.assert_close(tensor, base[name] + 0.75 * (one[name] - base[name]), rtol=0, atol=1e-12)
    for name, tensor in merge_in_memory("sce", [one, base], base).items():
        torch.testing.assert_close(tensor, one[name], rtol=0, atol=1e-12)
    merged = merge_in_memory("karcher", [one, {n: torch.zeros_like(t) for n, t in one.items()}], weights=[3, 1])
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, 0.75 * one[name], rtol=1e-12, atol=0)


def test_tiny_updates_are_weighed_by_their_energy_all_the_same() -> None:
    """mergekit falls back to equal weights where the mean squares add up to less than 1e-6."""
    base = {"w": torch.zeros(3, dtype=torch.float64)}
    models = [{"w": torch.full((3,), step, dtype=torch.float64)} for step in (3e-6, 1e-6)]
    merged = merge_in_memory("sce", models, base)["w"]
    torch.testing.assert_close(merged, torch.full((3,), 2.8e-6, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("density", [0.0, 0.001])
def test_sce_that_selects_nothing_is_the_base(density: float) -> None:
    base, models = tuned(2)
    merged = merge_in_memory("sce", models, base, options={"density": density})
    assert all(torch.equal(tensor, base[name]) for name, tensor in merged.items())


def test_the_median_is_drawn_away_by_no_minority() -> None:
    base, models = tuned(3)
    far = {name: tensor + 1e6 for name, tensor in models[0].items()}
    merged = merge_in_memory("geometric_median", [*models, far])
    for name in ("matrix", "kernel"):
        assert float((merged[name] - base[name]).norm()) < 3 * float((models[0][name] - base[name]).norm())


def test_the_median_is_a_model_that_has_the_weight_and_of_two_equal_ones_the_mean() -> None:
    _, models = tuned(3)
    merged = merge_in_memory("geometric_median", models, weights=[1, 2.5, 1])
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in merged.items())
    merged = merge_in_memory("geometric_median", models[:2])
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, (models[0][name] + models[1][name]) / 2, rtol=0, atol=1e-12)


@given(seed=st.integers(0, 99), weights=st.lists(st.floats(0.1, 1), min_size=4, max_size=4))
@settings(max_examples=8, deadline=None)
def test_no_step_from_the_median_shortens_the_distances(seed: int, weights: list[float]) -> None:
    generator = np.random.default_rng(seed)
    points = generator.standard_normal((4, 6))
    merged = merge_in_memory("geometric_median", [{"w": torch.from_numpy(point)} for point in points], weights=weights)
    found = merged["w"].numpy()
    least = reference.sum_of_distances(found, points, weights)
    for step in 1e-3 * generator.standard_normal((20, 6)):
        assert reference.sum_of_distances(found + step, points, weights) >= least - 1e-12


def test_the_karcher_mean_of_two_is_on_the_arc() -> None:
    _, models = tuned(2)
    arc = merge_in_memory("slerp", models, options={"interpolation_factor": 0.3})
    for name, tensor in merge_in_memory("karcher", models, weights=[0.7, 0.3]).items():
        torch.testing.assert_close(tensor, arc[name], rtol=1e-10, atol=1e-10)


def test_nuslerp_of_models_that_add_to_zeros_is_slerp() -> None:
    _, models = tuned(2)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in models[0].items()}
    options = {"interpolation_factor": 0.25, "normalize_before_slerp": False}
    arc = merge_in_memory("slerp", models, options=options)
    for name, tensor in merge_in_memory("nuslerp", models, zeros, weights=[3, 1]).items():
        torch.testing.assert_close(tensor, arc[name], rtol=1e-12, atol=1e-12)


def test_scale_0_of_passthrough_makes_zeros_of_some_tensors_and_keeps_the_bits_of_others() -> None:
    """Layers that begin as the identity."""
    names = ("model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.up_proj.weight")
    one = {name: torch.randn(4, 4, generator=torch.Generator().manual_seed(5)).bfloat16() for name in names}
    merged = merge_in_memory("passthrough", [one], options={"scale": {"*down_proj*": 0, "default": 1}})
    assert not merged[names[0]].any()
    assert torch.equal(merged[names[1]], one[names[1]])


@pytest.mark.parametrize(
    ("strategy", "options", "said"),
    [
        ("nearswap", {"t": -1}, "options.t: must not be negative, got -1.0"),
        ("sce", {"density": 1.5}, "options.density: must be in [0, 1], got 1.5"),
        ("ram", {"epsilon": -1}, "options.epsilon: must not be negative, got -1.0"),
        ("ramplus_tl", {"alpha": -1}, "options.alpha: must not be negative, got -1.0"),
        ("karcher", {"max_iter": 0}, "options.max_iter: "),
        ("geometric_median", {"tol": 2}, "options.tol: must be in [0, 1], got 2.0"),
    ],
)
def test_options_are_checked(strategy: str, options: dict[str, float], said: str) -> None:
    models = [{"path": path} for path in ("./a", "./b")[: COUNTS.get(strategy, 2)]]
    with pytest.raises(ConfigError) as refused:
        MergeConfig(strategy=strategy, base_model="./c", models=models, options=options)
    (line,) = refused.value.lines()
    assert line.startswith(said)


@pytest.mark.parametrize(("strategy", "count", "said"), [
    ("model_stock", 1, "at least two models, 1 given"), ("nuslerp", 3, "exactly two models, 3 given"),
    ("nearswap", 2, "exactly one model, 2 given"), ("arcee_fusion", 2, "exactly one model, 2 given"),
])  # fmt: skip
def test_the_number_of_models_is_checked(strategy: str, count: int, said: str) -> None:
    with pytest.raises(ConfigError, match=f"models: {strategy} merges {said}"):
        MergeConfig(strategy=strategy, base_model="./d", models=[{"path": f"./{i}"} for i in range(count)])


@pytest.mark.parametrize("strategy", [*BASED, "arcee_fusion"])
def test_a_base_is_needed(strategy: str) -> None:
    models = [{"path": f"./{i}"} for i in range(COUNTS.get(strategy, 2))]
    with pytest.raises(ConfigError, match=f"{strategy} needs base_model"):
        MergeConfig(strategy=strategy, models=models)


def test_no_strategy_imports_torch_when_it_is_imported() -> None:
    """`check` and `plan` import the strategy of a config, and stay light."""
    imports = "; ".join(f"import modelmerger_strategies.{strategy}" for strategy in EVERY)
    program = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def test_quartiles_are_exact_however_large_the_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 1,000,000 elements mergekit draws a sample. Blocks here are small, so that there are many."""
    monkeypatch.setattr("modelmerger.planning.measured.MEASURED", 1 << 12)
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(500, 64, generator=generator, dtype=torch.float64)
    model = base + 0.1 * torch.randn(500, 64, generator=generator, dtype=torch.float64) ** 3
    merged = merge_in_memory("arcee_fusion", [{"w": model}], {"w": base})["w"]
    assert np.array_equal(merged.numpy(), reference.arcee_fusion(model.numpy(), base.numpy()))
    share = float((merged != base).double().mean())
    assert 0.02 < share < 0.3
