"""The strategies that merge singular values: against float64 references, and what each promises at the edges."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modelmerger.engine.merge import Merge
from modelmerger.engine.splitting import split_tensor
from modelmerger.testing import merge_in_memory, plan_in_memory
from modelmerger_strategies.task_vectors.spectrum import rounding_noise, spectrum_of

Array = np.ndarray
Tensors = dict[str, torch.Tensor]
MATRICES = {"model.layers.0.w": (24, 15), "model.layers.1.w": (7, 20), "column": (9, 1)}
OTHERS = {"norm": (11,), "model.embed_tokens.weight": (13, 6), "lm_head.weight": (13, 6), "experts": (2, 5, 4)}
WEIGHTS = [1.0, 0.5, -0.75]
SHARES = {"tsv_m": 0.55, "iso_c": 0.55, "boost": 0.4}
ALL = sorted(SHARES)


def model(seed: int, near: Tensors | None = None, scale: float = 1.0) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    made = {n: scale * torch.randn(shape, generator=generator) for n, shape in {**MATRICES, **OTHERS}.items()}
    return {name: (near[name] if near else 0) + value for name, value in made.items()}


BASE = model(0)
MODELS = [model(seed, BASE, scale) for seed, scale in ((1, 0.05), (2, 0.2), (3, 0.1))]


def inverse_root(gram: Array) -> Array:
    """Of a positive semidefinite matrix, on its range."""
    values, vectors = np.linalg.eigh(gram)
    roots = np.where(values > values[-1] * 1e-12, 1 / np.sqrt(np.maximum(values, 1e-300)), 0)
    return (vectors * roots) @ vectors.T


def tsv_m(taus: Sequence[Array], weights: Sequence[float]) -> Array:
    """By eigenvectors, and by (AAᵀ)^(−1/2)·A as the polar factor."""
    most = max(1, min(taus[0].shape) // len(taus))
    left, right, values = [], [], []
    for tau, weight in zip(taus, weights, strict=True):
        squares, vectors = np.linalg.eigh(tau.T @ tau)
        for square, vector in list(zip(squares, vectors.T, strict=True))[::-1][:most]:
            left.append(tau @ vector / np.sqrt(square))
            right.append(vector)
            values.append(weight * np.sqrt(square))
    u, v = np.array(left).T, np.array(right).T
    return inverse_root(u @ u.T) @ u @ np.diag(values) @ (inverse_root(v @ v.T) @ v).T


def iso_c(taus: Sequence[Array], weights: Sequence[float]) -> Array:
    total = sum(w * t for w, t in zip(weights, taus, strict=True))
    return np.linalg.norm(total, "nuc") / min(total.shape) * inverse_root(total @ total.T) @ total


def boost(taus: Sequence[Array], weights: Sequence[float], boosted_from: float = 0.5) -> Array:
    u, values, v = np.linalg.svd(sum(w * t for w, t in zip(weights, taus, strict=True)), full_matrices=False)
    first = next(i for i in range(len(values)) if values[: i + 1].sum() >= boosted_from * values.sum() * (1 - 1e-15))
    return u @ np.diag(np.maximum(values, values[first])) @ v


REFERENCES: dict[str, Callable[..., Array]] = {"tsv_m": tsv_m, "iso_c": iso_c, "boost": boost}


def arrays(models: Sequence[Tensors], name: str, base: Tensors = BASE) -> list[Array]:
    return [one[name].double().numpy() - base[name].double().numpy() for one in models]


@pytest.mark.parametrize("factor", ["matched", 1.0, 0.3])
@pytest.mark.parametrize("strategy", ALL)
def test_merges_are_those_of_the_paper(strategy: str, factor: Any) -> None:
    merged = merge_in_memory(strategy, MODELS, BASE, WEIGHTS, options={"scaling_factor": factor})
    for name in MATRICES:
        taus = arrays(MODELS, name)
        wanted = REFERENCES[strategy](taus, WEIGHTS)
        plain = np.linalg.norm(sum(w * t for w, t in zip(WEIGHTS, taus, strict=True)))
        scale = SHARES[strategy] * 4 / 3 * plain / np.linalg.norm(wanted) if factor == "matched" else factor
        found = merged[name].double().numpy() - BASE[name].double().numpy()
        np.testing.assert_allclose(found, scale * wanted, atol=3e-7, rtol=1e-5, err_msg=name)
    for name in OTHERS:
        mean = sum(w * t for w, t in zip(WEIGHTS, arrays(MODELS, name), strict=True)) / 3
        found = merged[name].double().numpy() - BASE[name].double().numpy()
        np.testing.assert_allclose(found, (1 if factor == "matched" else factor) * mean, atol=3e-7)


@pytest.mark.parametrize("boosted_from", [0.0, 0.2, 1.0])
def test_boost_begins_where_it_is_told(boosted_from: float) -> None:
    options = {"scaling_factor": 1.0, "boosted_from": boosted_from}
    merged = merge_in_memory("boost", MODELS, BASE, options=options)
    for name in MATRICES:
        wanted = boost(arrays(MODELS, name), [1, 1, 1], boosted_from)
        np.testing.assert_allclose(merged[name].double().numpy() - BASE[name].double().numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize("strategy", ALL)
def test_slices_workers_and_threads_do_not_matter(strategy: str) -> None:
    generator = torch.Generator().manual_seed(5)
    base = {f"{i}.w": torch.randn(130, 90, generator=generator).bfloat16() for i in range(4)}
    models = [
        {n: (t + 0.1 * torch.randn(t.shape, generator=generator)).bfloat16() for n, t in base.items()} for _ in "ab"
    ]
    threads = torch.get_num_threads()
    found = []
    try:
        for number, how in ((1, {"workers": 1}), (2, {"workers": 3, "slice_elements": 77}), (4, {"workers": 2})):
            torch.set_num_threads(number)
            found.append(plan_in_memory(strategy, models, base).merge(**how))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0][name], other[name]) for other in found[1:] for name in base)


def low_rank(seed: int, rank: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(shape, generator=generator).double() for shape in ((60, rank), (rank, 40)))
    return left @ right * 0.02


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_directions_that_rounding_makes_do_not_count(dtype: torch.dtype) -> None:
    base = torch.randn(60, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    rounded = (base.double() + low_rank(1)).to(dtype)
    found = spectrum_of(rounded.double() - base.double(), rounding_noise(rounded.double()), 60)
    assert len(found.values) == 3
    torch.testing.assert_close(found.values, torch.linalg.svdvals(low_rank(1))[:3], rtol=0.02, atol=0)
    unit = torch.nextafter(rounded, torch.full_like(rounded, torch.inf)).double() - rounded.double()
    off = (rounded.double() - base.double() - low_rank(1)).square().mean().sqrt()
    assert 0.7 < rounding_noise(rounded.double()) / off < 1.4
    assert (off > 0.1 * unit.square().mean().sqrt()).all()


@pytest.mark.parametrize("strategy", ALL)
def test_updates_of_low_rank_are_merged_as_if_they_had_not_been_rounded(strategy: str) -> None:
    base = torch.randn(60, 40, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = [{"w": base.double() + low_rank(seed)} for seed in (1, 2)]
    wanted = merge_in_memory(strategy, exact, {"w": base.double()})["w"] - base.double()
    rounded = [{"w": one["w"].bfloat16().float()} for one in exact]
    found = merge_in_memory(strategy, rounded, {"w": base.float()})["w"].double() - base.double()
    assert torch.linalg.matrix_rank(wanted, rtol=1e-6) == 6
    assert (found - wanted).norm() < 0.15 * wanted.norm()
    assert torch.linalg.matrix_rank(found, rtol=1e-3) == 6


def test_where_all_is_as_small_as_rounding_all_counts() -> None:
    tau = torch.full((8, 8), 2.0**-9)
    assert len(spectrum_of(tau, 1.0, 8).values) == 1
    assert len(spectrum_of(torch.zeros(3, 4), 1.0, 4).values) == 0


@pytest.mark.parametrize("strategy", ALL)
@given(seed=st.integers(0, 1 << 20), rows=st.integers(1, 6), columns=st.integers(1, 6), count=st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_a_rotation_of_rows_rotates_the_result(strategy: str, seed: int, rows: int, columns: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    taus = [torch.randn(rows, columns, generator=generator, dtype=torch.float64) for _ in range(count)]
    turn = torch.linalg.qr(torch.randn(rows, rows, generator=generator, dtype=torch.float64)).Q
    base = {"w": torch.zeros(rows, columns, dtype=torch.float64)}
    plain, turned = (
        merge_in_memory(strategy, [{"w": tau} for tau in given], base)["w"]
        for given in (taus, [turn @ tau for tau in taus])
    )
    torch.testing.assert_close(turn @ plain, turned, rtol=1e-6, atol=1e-8)


def test_one_model_alone_is_itself_for_tsv_m() -> None:
    for weight in (1.0, -0.5):
        merged = merge_in_memory("tsv_m", MODELS[:1], BASE, [weight])
        for name in BASE:
            torch.testing.assert_close(
                merged[name], BASE[name] + weight * (MODELS[0][name] - BASE[name]), rtol=1e-5, atol=1e-6
            )


def test_equal_models_keep_their_strong_directions_in_tsv_m() -> None:
    merged = merge_in_memory("tsv_m", [MODELS[0]] * 3, BASE, options={"scaling_factor": 1.0})
    for name, shape in MATRICES.items():
        u, s, v = np.linalg.svd(arrays(MODELS[:1], name)[0], full_matrices=False)
        most = max(1, min(shape) // 3)
        wanted = (u[:, :most] * s[:most]) @ v[:most]
        np.testing.assert_allclose(merged[name].double().numpy() - BASE[name].double().numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize("factor", ["matched", 1.0])
def test_nothing_learned_opposites_and_no_weights_leave_the_base(strategy: str, factor: Any) -> None:
    options = {"scaling_factor": factor}
    zeros = {name: torch.zeros_like(value) for name, value in BASE.items()}
    opposite = {name: -value for name, value in MODELS[0].items()}
    for models, base, weights in (
        ([BASE, BASE], BASE, [1, 1]),
        ([MODELS[0], opposite], zeros, [1, 1]),
        (MODELS[:2], BASE, [0, 0]),
        ([MODELS[0], MODELS[0]], BASE, [1, -1]),
    ):
        merged = merge_in_memory(strategy, models, base, weights, options=options)
        assert all(torch.equal(merged[name], base[name]) for name in BASE)


def test_lines_grows_from_layer_to_layer() -> None:
    names = ["model.embed_tokens.weight", *(f"model.layers.{i}.w" for i in range(3)), "model.norm.weight"]
    base, one, two = ({name: torch.full((2, 2), value) for name in names} for value in (1.0, 2.0, 4.0))
    for options, factors in (
        ({}, [0.5, 0.5, 0.75, 1.0, 1.0]),
        ({"growth": [0, 0.2]}, [0.5, 0.5, 0.6, 0.7, 0.7]),
        ({"scaling_factor": 0.1, "growth": [0, 1]}, [0.1, 0.1, 0.6, 1.1, 1.1]),
        ({"growth": 0}, [0.5] * 5),
    ):
        merged = merge_in_memory("lines", [one, two], base, [1, 0.5], options=options)
        found = [(merged[name].mean() - 1) / (1 + 0.5 * 3) for name in names]
        assert found == pytest.approx(factors)
    merged = merge_in_memory("lines", [one, two], base, [1, 0])
    assert merged["model.layers.0.w"].mean() == 2
    merged = merge_in_memory("lines", [one, two], base, [0, 0])
    assert all(torch.equal(merged[name], base[name]) for name in names)


def test_the_plan_names_the_memory_of_the_decomposition() -> None:
    """Twenty more of the largest matrix that is seen whole, in float32 where 16 bits are written."""

    def memory(columns: int) -> int:
        base = {"a.w": torch.zeros(512, columns).bfloat16(), "model.embed_tokens.weight": torch.zeros(9, 9).bfloat16()}
        return plan_in_memory("tsv_m", [base, base], base).plan.worker_memory

    assert memory(4096) - memory(2048) == 512 * 2048 * (8 + 4 * (3 + 2 + 20))


@pytest.mark.parametrize("factor", ["matched", 0.8])
def test_the_terms_of_tsv_m_are_those_of_the_paper_at_any_weights(factor: Any) -> None:
    planned = plan_in_memory("tsv_m", MODELS, BASE, WEIGHTS, options={"scaling_factor": factor})
    merge = Merge(planned.plan, planned.checkpoints, planned.hooks, planned.settings)
    for index, tensor in enumerate(planned.plan.tensors):
        if tensor.name not in MATRICES:
            continue
        terms = split_tensor(merge, index)
        assert terms is not None
        assert terms.follows == ("scaling_factor",)
        taus = arrays(MODELS, tensor.name)
        for weights in (WEIGHTS, [0.2, 1.5, 0.6], [1e-6, -1.0, 0.3]):
            wanted = tsv_m(taus, weights)
            plain = np.linalg.norm(sum(w * t for w, t in zip(weights, taus, strict=True)))
            scale = 0.55 * 4 / 3 * plain / np.linalg.norm(wanted) if factor == "matched" else factor
            found = terms.weigh(weights, [None] * 3, tensor.options)
            sums = sum(c * left @ right for c, (left, right) in zip(found, terms.terms, strict=True))
            np.testing.assert_allclose(sums.double().numpy(), scale * wanted, atol=1e-6, rtol=1e-5)


def test_models_that_changed_nothing_have_terms_of_nothing() -> None:
    planned = plan_in_memory("tsv_m", [BASE, BASE], BASE)
    merge = Merge(planned.plan, planned.checkpoints, planned.hooks, planned.settings)
    terms = split_tensor(merge, [tensor.name for tensor in planned.plan.tensors].index("model.layers.0.w"))
    assert terms is not None
    assert [float((left @ right).abs().sum()) for left, right in terms.terms] == [0.0, 0.0]
    assert terms.weigh([1.0, 2.0], [None] * 2, planned.plan.tensors[0].options) == (0.0, 0.0)
