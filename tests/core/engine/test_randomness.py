"""Random numbers of elements: the same for any slices, different for any other seed, tensor or model, and uniform."""

import math

import numpy as np
import pytest
import torch
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from modelmerger.engine.randomness import WORDS, ElementNumbers, Precision

CPU = torch.device("cpu")


def drawn(
    first: int, last: int, seed: int = 1, tensor: str = "w", model: int = 0, precision: Precision = "float32"
) -> torch.Tensor:
    return ElementNumbers(seed, tensor, [(first, last)], (last - first,), CPU, range(9))(model, precision)


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


def test_the_stream_is_split_mix_and_does_not_change_between_versions() -> None:
    """Published masks must come out again: the first numbers stand here as they were drawn when this was written."""
    assert drawn(0, 3).tolist() == FIRST_FLOAT32
    assert drawn(0, 3, precision="float64").tolist() == FIRST_FLOAT64


FIRST_FLOAT32 = [0.31765228509902954, 0.46306389570236206, 0.37817513942718506]
FIRST_FLOAT64 = [0.46306392464732105, 0.707537354756653, 0.09813021759850515]


def split_mix(number: int) -> int:
    """Word `number` of the stream of seed 1, tensor w and model 0, in whole numbers of any size."""
    digest, most = blake3(repr((1, "w", 0)).encode()).digest(length=16), 1 << 64
    a, b = (int.from_bytes(half, "little") for half in (digest[:8], digest[8:]))
    word = (a + number * 0x9E3779B97F4A7C15) % most ^ b
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % most
    word = (word ^ word >> 27) * 0x94D049BB133111EB % most
    return word ^ word >> 31


@pytest.mark.parametrize("first", [0, 1, 2 * WORDS - 3, 10**12 + 1])
def test_numbers_are_those_of_the_formula_also_where_parts_meet(first: int) -> None:
    elements = range(first, first + 9)
    halves = [(split_mix(i // 2) >> 32 * (i % 2)) % (1 << 32) for i in elements]
    assert drawn(first, first + 9).tolist() == [(half >> 8) * 2.0**-24 for half in halves]
    wanted = [(split_mix(i) >> 11) * 2.0**-53 for i in elements]
    assert drawn(first, first + 9, precision="float64").tolist() == wanted
    long = drawn(first, first + 5 * WORDS)
    assert torch.equal(long[2 * WORDS - 7 :], drawn(first + 2 * WORDS - 7, first + 5 * WORDS))


@pytest.mark.parametrize("below", [-1.0, 0.0, 1e-12, 2.0**-24, 0.3, 0.5, 0.9, 1 - 2.0**-24, 1 - 1e-9, 1.0, 2.0])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_what_is_below_a_number_is_what_torch_finds_below_it(precision: Precision, below: float) -> None:
    runs, shape = [(3, 2 * WORDS + 8), (2 * WORDS + 9, 2 * WORDS + 12)], (2, WORDS + 4)
    numbers = ElementNumbers(1, "w", runs, shape, CPU, [0])
    found, drawn_first = numbers(0, precision, below), numbers(0, precision)
    assert torch.equal(found, (drawn_first < below).to(drawn_first.dtype))


def test_a_number_that_is_drawn_is_not_below_itself() -> None:
    numbers = ElementNumbers(1, "w", [(0, 3)], (3,), CPU, [0])
    for place, number in enumerate(FIRST_FLOAT32):
        assert not numbers(0, below=number)[place]
        assert numbers(0, below=number + 2.0**-24)[place]


def test_streams_of_models_are_not_one_stream_moved() -> None:
    one, other = (set(drawn(0, 1 << 14, model=model, precision="float64").tolist()) for model in (0, 1))
    assert not one & other


def test_a_slice_comes_in_its_shape() -> None:
    rows = ElementNumbers(1, "w", [(6, 18)], (4, 3), CPU, [0])(0)
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
