"""Sums in their factors against the full matrices, in float64, over ranks, scales and weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modelmerger_plugins.peft_adapters.merging.factors import Pair, as_peft_does, best, inner_product

ROWS, COLUMNS = 23, 17
pairs = st.lists(
    st.tuples(
        st.integers(1, 9),
        st.floats(-2, 2).filter(lambda c: abs(c) > 1e-3),
        st.sampled_from([1e-4, 1.0, 1e4]),
        st.integers(0, 2**31),
    ),
    min_size=1,
    max_size=4,
)


def made(drawn: list[tuple[int, float, float, int]]) -> list[Pair]:
    """Factors of very different sizes, whose products are of one."""
    found = []
    for rank, coefficient, size, seed in drawn:
        generator = torch.Generator().manual_seed(seed)
        left = torch.randn(ROWS, rank, generator=generator, dtype=torch.float64) * size
        right = torch.randn(rank, COLUMNS, generator=generator, dtype=torch.float64) / size
        found.append(Pair(coefficient, left, right))
    return found


def full(found: list[Pair]) -> torch.Tensor:
    return torch.stack([pair.coefficient * pair.left @ pair.right for pair in found]).sum(0)


@settings(deadline=None, max_examples=60)
@given(pairs)
def test_the_sum_is_exact_and_of_its_own_rank(drawn: list[tuple[int, float, float, int]]) -> None:
    found, exact = made(drawn), full(made(drawn))
    product = best(found)
    scale = sum(abs(pair.coefficient) * float((pair.left @ pair.right).norm()) for pair in found)
    assert float((product.left @ product.right - exact).norm()) < 1e-11 * scale
    assert product.norm == pytest.approx(float(exact.norm()), abs=1e-11 * scale)
    assert product.left.shape[1] <= min(ROWS, COLUMNS, sum(rank for rank, *_ in drawn))
    if float(exact.norm()) > 1e-3 * scale:
        assert product.left.shape[1] == int(torch.linalg.matrix_rank(exact, rtol=1e-10))
        assert product.relative_error(torch.float32) < 1e-6


@settings(deadline=None, max_examples=60)
@given(pairs, st.integers(1, 12))
def test_a_lower_rank_is_eckart_and_youngs(drawn: list[tuple[int, float, float, int]], rank: int) -> None:
    found, exact = made(drawn), full(made(drawn))
    product = best(found, rank)
    values = torch.linalg.svdvals(exact)
    least = float(values[rank:].norm())
    scale = float(values.norm()) or 1.0
    assert float((product.left @ product.right - exact).norm()) == pytest.approx(least, abs=1e-7 * scale, rel=1e-7)
    assert product.relative_error(torch.float64) * product.norm == pytest.approx(least, abs=1e-7 * scale, rel=1e-6)


@settings(deadline=None, max_examples=30)
@given(pairs, pairs)
def test_inner_products_need_no_full_matrix(
    ours: list[tuple[int, float, float, int]], theirs: list[tuple[int, float, float, int]]
) -> None:
    wanted = float((full(made(ours)) * full(made(theirs))).sum())
    sizes = [
        sum(abs(pair.coefficient) * float((pair.left @ pair.right).norm()) for pair in made(drawn))
        for drawn in (ours, theirs)
    ]
    assert inner_product(made(ours), made(theirs)) == pytest.approx(wanted, abs=1e-9 * math.prod(sizes))


def test_pefts_sum_of_factors_has_cross_terms() -> None:
    found = made([(3, 0.5, 1.0, 1), (3, -0.25, 1.0, 2)])
    product = as_peft_does(found)
    roots = math.sqrt(0.5), math.sqrt(0.25)
    wanted = (roots[0] * found[0].left + roots[1] * found[1].left) @ (
        roots[0] * found[0].right - roots[1] * found[1].right
    )
    assert torch.allclose(product.left @ product.right, wanted, rtol=1e-13)
    error = float((wanted - full(found)).norm() / full(found).norm())
    assert product.relative_error(torch.float64) == pytest.approx(error, rel=1e-10)


def test_a_sum_that_cancels_is_zero() -> None:
    (pair,) = made([(4, 1.0, 1.0, 1)])
    product = best([pair, Pair(-1.0, pair.left.clone(), pair.right.clone())])
    assert product.left.shape == (ROWS, 1)
    assert float(product.left.norm()) == 0 == product.relative_error(torch.float32)
