"""Whole merges of handmade adapters against float64 numpy, over ranks, scales, weights, strategies and methods."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import modelmerger
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from plugins.peft_adapters.handmade import Made, read_updates, write_adapter, write_base

SHAPES = {"model.layers.0.up": (7, 5), "model.layers.1.up": (5, 6), "model.layers.1.down": (4, 4)}
adapters = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31),
        "rank": st.integers(1, 4),
        "alpha": st.floats(0.1, 20),
        "rslora": st.booleans(),
        "modules": st.sets(st.sampled_from(sorted(SHAPES)), min_size=1),
    }
)
weights = st.one_of(st.just(0.0), st.floats(0.01, 2), st.floats(-2, -0.01))


@st.composite
def merges(draw: st.DrawFn) -> dict[str, Any]:
    strategy = draw(st.sampled_from(["weighted", "sequential", "task_arithmetic", "slerp"]))
    count = 2 if strategy == "slerp" else draw(st.integers(1, 3))
    method = draw(st.sampled_from(["linear", "cat", "svd"]))
    options: dict[str, Any] = {"merge_method": method}
    given_weights = [draw(weights) for _ in range(count)]
    if strategy == "weighted":
        options |= {"normalize_weights": False, "weight_decay": draw(st.floats(0, 0.9))}
    elif strategy == "sequential":
        given_weights[0] = 1.0
    elif strategy == "task_arithmetic":
        options["scaling_factor"] = draw(st.floats(0.1, 2))
    else:
        given_weights = [1.0, 1.0]
        factor = st.one_of(st.just(0.0), st.just(1.0), st.floats(0.01, 0.99))  # float32 holds no share of 1e-100
        options |= {"interpolation_factor": draw(factor), "normalize_before_slerp": draw(st.booleans())}
    made = [draw(adapters) for _ in range(count)]
    return {"strategy": strategy, "weights": given_weights, "options": options, "adapters": made}


@given(merges())
@settings(max_examples=40, deadline=None)
def test_a_merge_of_updates_is_what_numpy_makes_in_float64(
    tmp_path_factory: pytest.TempPathFactory, merge: dict[str, Any]
) -> None:
    """And the report says how far what was written is from it."""
    # a folder of pytest's, so that nothing stays for good where the tests are killed
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as folder:
        root = Path(folder)
        base = write_base(root / "base", SHAPES)
        made = [written(root / str(number), base, drawn) for number, drawn in enumerate(merge["adapters"])]
        shares = {module: coefficients(merge, made, module) for module in SHAPES}
        assume(
            any(
                share
                for module in SHAPES
                for share, adapter in zip(shares[module], made, strict=True)
                if module in adapter.updates
            )
        )
        config = modelmerger.MergeConfig(
            strategy=merge["strategy"],
            models=[{"path": str(m.path), "weight": weight} for m, weight in zip(made, merge["weights"], strict=True)],
            output_path=str(root / "merged"),
            options=merge["options"],
            peft_config={"merge_adapters": True},
        )
        report = modelmerger.merge(config)
        found = read_updates(root / "merged")
    missing = square = whole = 0.0
    for module in SHAPES:
        parts = [share * update(adapter, module) for share, adapter in zip(shares[module], made, strict=True)]
        exact, size = sum(parts), sum(float(np.linalg.norm(part)) for part in parts)
        least = 0.0
        if merge["options"]["merge_method"] == "svd":
            ranks = [made["rank"] for made in merge["adapters"] if module in made["modules"]]
            least = float(np.linalg.norm(np.linalg.svd(exact, compute_uv=False)[max(ranks, default=0) :]))
        error = float(np.linalg.norm(found.get(module, 0) - exact))
        assert error == pytest.approx(least, rel=1e-4, abs=1e-6 * size)
        missing, square, whole = missing + error**2, square + float(np.linalg.norm(exact)) ** 2, whole + size**2
    assume(square > 1e-9 * whole)  # updates that cancel leave nothing that an error could be relative to
    assert report.relative_error == pytest.approx(np.sqrt(missing / square), rel=1e-3, abs=1e-9)


def written(folder: Path, base: Path, drawn: dict[str, Any]) -> Made:
    shapes = {module: SHAPES[module] for module in sorted(drawn["modules"])}
    return write_adapter(folder, base, shapes, drawn["seed"], drawn["rank"], drawn["alpha"], drawn["rslora"])


def update(adapter: Made, module: str) -> np.ndarray:
    return adapter.updates.get(module, np.zeros(SHAPES[module]))


def coefficients(merge: dict[str, Any], made: Sequence[Made], module: str) -> list[float]:
    """What each update counts, by the formula of the strategy."""
    options, weights = merge["options"], merge["weights"]
    if merge["strategy"] == "weighted":
        return [(1 - options["weight_decay"]) * weight for weight in weights]
    if merge["strategy"] == "task_arithmetic":
        return [options["scaling_factor"] * weight for weight in weights]
    if merge["strategy"] == "sequential":
        found = [1.0]
        for weight in weights[1:]:
            found = [*((1 - weight) * share for share in found), weight]
        return found
    return slerped(*(update(adapter, module) for adapter in made), options)


def slerped(first: np.ndarray, second: np.ndarray, options: dict[str, Any]) -> list[float]:
    t, norms = options["interpolation_factor"], (np.linalg.norm(first), np.linalg.norm(second))
    if min(norms) < 1e-8:
        return [1 - t, t]
    angle = np.arccos(np.clip(np.vdot(first, second) / (norms[0] * norms[1]), -1, 1))
    if np.sin(angle) < 1e-8:
        return [1 - t, t]
    shares = np.sin((1 - t) * angle) / np.sin(angle), np.sin(t * angle) / np.sin(angle)
    if not options["normalize_before_slerp"]:
        return list(shares)
    norm = (1 - t) * norms[0] + t * norms[1]
    return [norm * share / own for share, own in zip(shares, norms, strict=True)]
