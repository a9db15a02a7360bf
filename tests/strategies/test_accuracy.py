"""Every strategy against the formulas in float64 numpy: merged values are rounded once, to half a unit in the last place."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modelmerger.testing import merge_in_memory

from tests.strategies import references
from tests.strategies.references import assert_rounded_once

SHAPES = {"scalar": (), "vector": (1537,), "matrix": (9, 11), "cube": (3, 5, 7), "kernel": (4, 3, 2, 5)}
WRITTEN = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
STORED = (torch.float64, torch.float32, torch.bfloat16, torch.float16, *FLOAT8)
fractions = st.floats(0.01, 1, allow_subnormal=False)
factors = st.floats(-2, 2, allow_subnormal=False)


def tuned(seed: int, stored: torch.dtype, count: int, scale: float = 0.5) -> list[dict[str, torch.Tensor]]:
    """Models tuned from one: magnitudes over five binades, and changes of at most a tenth, so that signs agree."""
    generator = torch.Generator().manual_seed(seed)

    def random(shape: Sequence[int]) -> torch.Tensor:
        return torch.rand(tuple(shape), generator=generator, dtype=torch.float64)

    base = {
        name: scale * torch.exp2(-5 * random(shape)) * torch.sign(random(shape) - 0.5) for name, shape in SHAPES.items()
    }
    return [
        {name: (value * (0.9 + 0.2 * random(value.shape))).to(stored) for name, value in base.items()}
        for _ in range(count)
    ]


def arrays(models: Sequence[dict[str, torch.Tensor]], name: str) -> list[np.ndarray]:
    return [model[name].to(torch.float64).numpy() for model in models]


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("stored", STORED, ids=str)
@given(
    weights=st.lists(fractions, min_size=1, max_size=4),
    normalize=st.booleans(),
    decay=st.floats(0, 0.5),
    seed=st.integers(0, 99),
)
@settings(max_examples=3, deadline=None)
def test_weighted_rounds_once(
    stored: torch.dtype, written: str, weights: list[float], normalize: bool, decay: float, seed: int
) -> None:
    models = tuned(seed, stored, len(weights))
    options = {"normalize_weights": normalize, "weight_decay": decay, "torch_dtype": written}

    merged = merge_in_memory("weighted", models, weights=weights, options=options)

    for name, tensor in merged.items():
        inputs = arrays(models, name)
        exact = references.weighted(inputs, weights, normalize, decay)
        magnitude = references.weighted([abs(t) for t in inputs], weights, normalize, decay)
        assert tensor.dtype == WRITTEN[written]
        assert_rounded_once(tensor, exact, magnitude, len(weights))


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("stored", STORED, ids=str)
@given(weights=st.lists(fractions, max_size=3), seed=st.integers(0, 99))
@settings(max_examples=3, deadline=None)
def test_sequential_rounds_once(stored: torch.dtype, written: str, weights: list[float], seed: int) -> None:
    models = tuned(seed, stored, len(weights) + 1)

    merged = merge_in_memory("sequential", models, weights=[1, *weights], options={"torch_dtype": written})

    for name, tensor in merged.items():
        inputs = arrays(models, name)
        exact = references.sequential(inputs, [1, *weights])
        magnitude = references.sequential([abs(t) for t in inputs], [1, *weights])
        assert_rounded_once(tensor, exact, magnitude, len(models))


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("stored", STORED, ids=str)
@given(
    models=st.lists(st.tuples(factors, st.booleans()), min_size=1, max_size=3),
    scaling=factors,
    seed=st.integers(0, 99),
)
@settings(max_examples=3, deadline=None)
def test_task_arithmetic_rounds_once(
    stored: torch.dtype, written: str, models: list[tuple[float, bool]], scaling: float, seed: int
) -> None:
    weights, subtracted = [weight for weight, _ in models], [minus for _, minus in models]
    base, *tunes = tuned(seed, stored, len(models) + 1)

    merged = merge_in_memory(
        "task_arithmetic",
        tunes,
        base,
        weights,
        [{"operation": "subtract" if minus else "add"} for minus in subtracted],
        {"scaling_factor": scaling, "torch_dtype": written},
    )

    signed = [scaling * (-abs(w) if minus else w) for w, minus in models]
    for name, tensor in merged.items():
        *inputs, start = arrays([*tunes, base], name)
        exact = references.task_arithmetic(inputs, start, weights, subtracted, scaling)
        magnitude = sum(abs(c * t) for c, t in zip(signed, inputs, strict=True)) + abs((1 - sum(signed)) * start)
        assert_rounded_once(tensor, exact, magnitude, len(models) + 1)


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("stored", STORED, ids=str)
@given(t=st.floats(0, 1), normalize=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=3, deadline=None)
def test_slerp_rounds_once(stored: torch.dtype, written: str, t: float, normalize: bool, seed: int) -> None:
    models = tuned(seed, stored, 2)
    options = {"interpolation_factor": t, "normalize_before_slerp": normalize, "torch_dtype": written}

    merged = merge_in_memory("slerp", models, options=options)

    for name, tensor in merged.items():
        exact = references.slerp(*arrays(models, name), t, normalize)
        assert_rounded_once(tensor, exact, abs(exact), 2)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, *FLOAT8], ids=str)
def test_results_below_the_normal_numbers_and_at_powers_of_two_round_once(stored: torch.dtype) -> None:
    """Where the unit in the last place changes, or no longer shrinks."""
    smallest = torch.finfo(stored).smallest_normal
    around = [power * (1 + step * torch.finfo(stored).eps / 4) for power in (0.5, 1, 2) for step in range(-4, 5)]
    values = torch.tensor([*around, *(smallest * torch.arange(1, 64) / 16)], dtype=torch.float64)
    models = [{"t": order.to(stored)} for order in (values, values.flip(0), values.roll(1))]

    merged = merge_in_memory("weighted", models, weights=[0.41, 0.33, 0.26])

    inputs = arrays(models, "t")
    exact = references.weighted(inputs, [0.41, 0.33, 0.26])
    assert merged["t"].dtype == stored
    assert_rounded_once(merged["t"], exact, exact, 3)


def test_float64_is_merged_in_float64() -> None:
    """Written as float64 there is no wider arithmetic: one rounding for each coefficient, product and sum."""
    models = tuned(5, torch.float64, 3)

    merged = merge_in_memory("weighted", models, weights=[0.3, 0.5, 0.4])

    for name, tensor in merged.items():
        inputs = [array.astype(np.longdouble) for array in arrays(models, name)]
        exact = references.weighted(inputs, [np.longdouble(w) for w in (0.3, 0.5, 0.4)])
        assert tensor.dtype == torch.float64
        assert (abs(tensor.numpy() - exact) <= 5 * 2.0**-53 * abs(exact)).all()


def test_sums_of_many_models_round_once_too() -> None:
    """48 equal products, each sum of which float32 would round to the same side."""
    values = (torch.arange(2048, 4096) / 4096).half()

    merged = merge_in_memory(
        "weighted", [{"t": values}] * 48, weights=[0.033834977210795515] * 48, options={"normalize_weights": False}
    )

    exact = 48 * 0.033834977210795515 * values.double().numpy()
    assert_rounded_once(merged["t"], exact, exact, 48)
