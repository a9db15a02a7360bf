"""Random numbers of elements: the same for any slices, different for any other seed, tensor or model, and uniform."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from modelmerger.engine.randomness import ElementNumbers, Precision

CPU = torch.device("cpu")


def drawn(
    first: int, last: int, seed: int = 1, tensor: str = "w", model: int = 0, precision: Precision = "float32"
) -> torch.Tensor:
    return ElementNumbers(seed, tensor, first, last, (last - first,), CPU, range(9))(model, precision)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@given(st.data())
def test_an_element_has_its_number_whatever_the_slice(precision: Precision, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, 200))
    last = data.draw(st.integers(first, 210))
    whole = drawn(0, 210, precision=precision)
    assert torch.equal(drawn(first, last, precision=precision), whole[first:last])


def test_far_elements_are_reached_at_once() -> None:
    far = 10**12
    assert torch.equal(drawn(far, far + 9)[3:], drawn(far + 3, far + 9))


def test_seed_tensor_and_model_decide() -> None:
    numbers = [
        drawn(0, 64),
        drawn(0, 64, seed=2),
        drawn(0, 64, tensor="v"),
        drawn(0, 64, model=1),
        drawn(0, 64, seed=11, tensor="", model=1),
        drawn(0, 64, seed=1, tensor="1", model=1),
    ]
    assert len({tuple(found.tolist()) for found in numbers}) == len(numbers)


def test_the_stream_is_that_of_numpys_philox_and_does_not_change_between_versions() -> None:
    """Published masks must come out again: the first numbers stand here as they were drawn when this was written."""
    assert drawn(0, 3).tolist() == FIRST_FLOAT32
    assert drawn(0, 3, precision="float64").tolist() == FIRST_FLOAT64


FIRST_FLOAT32 = [0.8400703072547913, 0.5061129331588745, 0.5532400608062744]
FIRST_FLOAT64 = [0.5061129401065573, 0.581607391953757, 0.3375000218448606]


def test_a_slice_comes_in_its_shape() -> None:
    rows = ElementNumbers(1, "w", 6, 18, (4, 3), CPU, [0])(0)
    assert (rows.shape, rows.dtype) == ((4, 3), torch.float32)
    assert torch.equal(rows.view(-1), drawn(6, 18))


@pytest.mark.parametrize(("precision", "bits"), [("float32", 24), ("float64", 53)])
def test_numbers_are_uniform_and_independent(precision: Precision, bits: int) -> None:
    """Within five standard errors: mean, variance, a chi-square of 256 bins, the lag-1 correlation, and that of two models."""
    n = 1 << 20
    found = drawn(0, n, precision=precision).double().numpy()
    other = drawn(0, n, model=1, precision=precision).double().numpy()
    assert 0 <= found.min() <= found.max() < 1
    assert np.array_equal(found * 2.0**bits, np.floor(found * 2.0**bits))
    assert abs(found.mean() - 0.5) < 5 * math.sqrt(1 / 12 / n)
    assert abs(found.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / n)
    counts = np.bincount((found * 256).astype(int), minlength=256)
    chi_square = float(((counts - n / 256) ** 2 / (n / 256)).sum())
    assert abs(chi_square - 255) < 5 * math.sqrt(2 * 255)
    for left, right in ((found[1:], found[:-1]), (found, other)):
        assert abs(np.corrcoef(left, right)[0, 1]) < 5 / math.sqrt(n)
    low = (found * 2.0**bits).astype(np.int64) & 1
    assert abs(low.mean() - 0.5) < 5 * math.sqrt(1 / 4 / n)
