"""Sums whose parts come in any order: the bits of one order, and few parts kept."""

import itertools

import pytest
import torch
from modelmerger.engine.statistics import OrderedSum, UnsteadyError, as_statistic, as_tensor, sum_in_order

PARTS = [torch.tensor([number, 1.0], dtype=torch.float64) for number in (1e16, 1.0, -1e16, 3.0)]


def summed(order: tuple[int, ...]) -> torch.Tensor | None:
    taken = OrderedSum(len(PARTS))
    for part in order:
        taken.add(part, PARTS[part])
    return taken.total


def test_a_sum_has_the_bits_of_its_order_however_its_parts_come() -> None:
    """1e16 + 1 is 1e16, so that each order has a sum of its own."""
    for order in itertools.permutations(range(4)):
        total = summed(order)
        assert total is not None
        assert total.tolist() == [3.0, 4.0]
    assert sum([3.0, 1.0, 1e16, -1e16]) != 3.0


def test_there_is_no_sum_before_the_last_part() -> None:
    assert summed((3, 0, 1)) is None


def test_a_part_that_comes_twice_counts_once() -> None:
    taken = OrderedSum(2)
    for part in (1, 1, 0, 1, 0):
        taken.add(part, torch.tensor([part + 1]))
    assert taken.total is not None
    assert taken.total.tolist() == [3]


def test_the_parts_are_not_changed_and_not_kept() -> None:
    parts = [torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.int64)]
    taken = OrderedSum(2)
    taken.add(0, parts[0])
    taken.add(1, parts[1])
    assert [part.tolist() for part in parts] == [[1, 1], [1, 1]]


@pytest.mark.parametrize("other", [torch.zeros(3, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)])
@pytest.mark.parametrize("place", [0, 1])
def test_a_part_of_another_form_is_refused(other: torch.Tensor, place: int) -> None:
    taken = OrderedSum(3)
    taken.add(place, PARTS[0])
    with pytest.raises(UnsteadyError):
        taken.add(2, other)
    with pytest.raises(UnsteadyError):
        sum_in_order(0, 2, [PARTS[0], other].__getitem__)


def test_nothing_adds_nothing() -> None:
    assert sum_in_order(4, 9, lambda _: None) is None
    for place in range(3):
        parts = [*PARTS[:place], None, *PARTS[place:]]
        total = sum_in_order(0, 5, parts.__getitem__)
        assert total is not None
        assert total.tolist() == [3.0, 4.0]
        for order in itertools.permutations(range(5)):
            taken = OrderedSum(5)
            for part in order:
                taken.add(part, parts[part])
            assert taken.total is not None
            assert taken.total.tolist() == [3.0, 4.0]
    empty = OrderedSum(1)
    empty.add(0, None)
    assert (empty.complete, empty.total) == (True, None)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,), (2, 0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_a_statistic_is_plain_data_and_back(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values = (torch.arange(torch.Size(shape).numel(), dtype=torch.float64) - 1).view(shape).to(dtype)

    back = as_tensor(as_statistic(values))

    assert back.dtype == dtype
    assert torch.equal(back, values)
    assert back.shape == shape


BIG = 2**62


def test_whole_numbers_beyond_int64_are_refused_in_any_order() -> None:
    """Two's complement would wrap round in silence."""
    for sign in (1, -1):
        parts = [torch.tensor([sign * BIG, 1]) for _ in range(3)]
        with pytest.raises(UnsteadyError, match="adds up to more than int64 holds; give float64"):
            sum_in_order(0, 3, parts.__getitem__)
        taken = OrderedSum(3)
        for part in (2, 0, 1):
            taken.add(part, parts[part])
        with pytest.raises(UnsteadyError, match="more than int64"):
            _ = taken.total


def test_what_goes_over_on_the_way_and_comes_back_is_right() -> None:
    numbers = [BIG, BIG, BIG, -BIG, -BIG, -3]
    for order in itertools.permutations(range(6)):
        taken = OrderedSum(6)
        for part in order:
            taken.add(part, torch.tensor([numbers[part]]))
        assert taken.total is not None
        assert taken.total.tolist() == [sum(numbers)]
