import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modelmerger.engine.arithmetic import (
    Workspace,
    are_finite,
    combine_into,
    extremes,
    factors,
    gram_of,
    has_finite_sum,
    overflows,
)
from modelmerger.testing import MemoryCheckpoint

NAN, INF = float("nan"), float("inf")
numbers = st.floats(-1e3, 1e3, width=32)


@given(st.lists(st.tuples(st.floats(-3, 3), st.lists(numbers, min_size=5, max_size=5)), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_a_sum_is_each_product_rounded_and_added_in_order(terms: list[tuple[float, list[float]]]) -> None:
    expected = None
    for coefficient, values in terms:
        product = np.array(values, np.float32) * np.float32(coefficient)
        expected = product if expected is None else expected + product

    coefficients = factors(torch.tensor([c for c, _ in terms]))
    assert [c is None for c in coefficients] == [np.float32(c) == 1 for c, _ in terms]
    total = combine_into(
        coefficients, [torch.tensor(v) for _, v in terms], torch.full((5,), NAN), torch.full((5,), NAN)
    )

    assert total.numpy().tobytes() == expected.tobytes()


def test_a_sum_starts_from_its_first_product_and_not_from_zero() -> None:
    zeros = torch.tensor([-0.0, -0.0])

    total = combine_into([None, torch.tensor(0.5)], [zeros, zeros], torch.ones(2), torch.ones(2))

    assert total.signbit().all()


def test_one_buffer_serves_one_purpose_and_grows() -> None:
    workspace = Workspace()

    small = workspace.tensor("a", 10, torch.float32)
    assert workspace.tensor("a", 5, torch.float64).data_ptr() == small.data_ptr()
    assert workspace.tensor("b", 10, torch.float32).data_ptr() != small.data_ptr()
    assert workspace.tensor("a", 20, torch.float32).shape == (20,)
    workspace.memory("a", 80)[4:8] = np.float32(7).tobytes()
    assert workspace.tensor("a", 20, torch.float32)[1] == 7
    workspace.memory("a", 160)[156:] = np.float32(8).tobytes()
    assert workspace.tensor("a", 20, torch.float32).shape == (20,)
    assert workspace.tensor("a", 40, torch.float32)[39] == 8


def test_reading_gives_the_stored_elements_and_counts_their_bytes() -> None:
    stored = torch.arange(24).to(torch.bfloat16).view(2, 3, 4)
    checkpoint = MemoryCheckpoint("m", {"t": stored})
    workspace = Workspace()

    assert workspace.read(checkpoint, "t", 5, 9).tolist() == [5, 6, 7, 8]
    assert workspace.read(checkpoint, "t", 0, 24).dtype == torch.bfloat16
    assert workspace.take_bytes_read() == (4 + 24) * 2
    assert workspace.take_bytes_read() == 0


def test_extremes_show_what_is_not_finite() -> None:
    assert extremes(torch.tensor([3.0, -7.0, 2.0])) == (-7, 3)
    assert extremes(torch.tensor([1.0, INF])) == (1, INF)
    assert all(map(np.isnan, extremes(torch.tensor([1.0, NAN]))))
    assert are_finite([torch.ones(2), torch.tensor([3e38, 3e38])])
    for bad in (NAN, INF, -INF):
        assert not are_finite([torch.ones(2), torch.tensor([1.0, bad])])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_finite_sum_rules_out_what_is_not_finite(dtype: torch.dtype) -> None:
    """Wherever it stands, and whatever would cancel it."""
    for length in (1, 7, 1000):
        assert has_finite_sum(torch.full((length,), -0.5, dtype=dtype))
        for place in {0, length // 2, length - 1}:
            for bad in (NAN, INF, -INF):
                tensor = torch.ones(length, dtype=dtype)
                tensor[place] = bad
                tensor[length - 1 - place] -= bad
                assert not has_finite_sum(tensor)
    assert not has_finite_sum(torch.zeros(3, dtype=torch.float8_e4m3fn))


def test_the_gram_matrix_holds_every_inner_product() -> None:
    vectors = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 100)))

    assert gram_of(list(vectors)).numpy() == pytest.approx((vectors @ vectors.T).numpy(), rel=1e-14)


@pytest.mark.parametrize(
    ("dtype", "name", "edge"),
    [
        (torch.float16, "F16", 65520.0),
        (torch.bfloat16, "BF16", 2.0**128 - 2.0**119),
        (torch.float32, "F32", 2.0**128 - 2.0**103),
        (torch.float8_e4m3fn, "F8_E4M3", 464.0),
        (torch.float8_e5m2, "F8_E5M2", 61440.0),
    ],
    ids=str,
)
def test_overflow_begins_half_a_unit_above_the_largest_number(dtype: torch.dtype, name: str, edge: float) -> None:
    for sign in (1, -1):
        below, above = (sign * edge * (1 + step) for step in (-1e-9, 1e-9))
        for value, expected in ((below, False), (above, True)):
            written = torch.tensor([value], dtype=torch.float64).to(dtype)
            if expected or written.to(torch.float64).isfinite():  # float64 → float8 goes through float32
                assert overflows(min(value, 0), max(value, 0), written, name) is expected
