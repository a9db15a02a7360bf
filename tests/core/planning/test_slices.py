from hypothesis import given, settings
from hypothesis import strategies as st
from modelmerger.planning.slices import WINDOW, Slice, slices, window
from modelmerger.values.layout import BLOCK
from modelmerger.values.tensor_plan import TensorPlan
from modelmerger.values.traits import Granularity

shapes = st.lists(st.integers(1, 9), max_size=4).map(tuple)


def tensor(shape: tuple[int, ...], granularity: Granularity = "elementwise") -> TensorPlan:
    return TensorPlan("t", "F32", shape, "merge", (0,), None, "F32", granularity=granularity)


def elements(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def part(draw_shape: tuple[int, ...], data: st.DataObject) -> tuple[int, int]:
    count = elements(draw_shape)
    start = data.draw(st.integers(0, count - 1))
    return start, data.draw(st.integers(start + 1, count))


@given(shapes, st.sampled_from(["elementwise", "rowwise", "whole"]), st.integers(1, 30), st.data())
@settings(max_examples=30, deadline=None)
def test_slices_tile_the_wanted_part_and_read_enough(
    shape: tuple[int, ...], granularity: Granularity, most: int, data: st.DataObject
) -> None:
    start, stop = part(shape, data)

    cut = list(slices(tensor(shape, granularity), start, stop, most))

    assert [cut[0].start, *(piece.stop for piece in cut)] == [*(piece.start for piece in cut), stop]
    assert cut[0].start == start
    for piece in cut:
        assert piece.first <= piece.start < piece.stop <= piece.last <= elements(shape)
        assert elements(piece.shape) == piece.last - piece.first


@given(shapes, st.integers(1, 30), st.data())
@settings(max_examples=30, deadline=None)
def test_an_elementwise_strategy_sees_short_vectors(shape: tuple[int, ...], most: int, data: st.DataObject) -> None:
    for piece in slices(tensor(shape), *part(shape, data), most):
        assert piece.shape == (piece.stop - piece.start,)
        assert (piece.first, piece.last) == (piece.start, piece.stop)
        assert piece.shape[0] <= most


@given(shapes, st.integers(1, 30), st.data())
@settings(max_examples=30, deadline=None)
def test_a_rowwise_strategy_sees_whole_rows(shape: tuple[int, ...], most: int, data: st.DataObject) -> None:
    row = shape[-1] if shape else 1
    for piece in slices(tensor(shape, "rowwise"), *part(shape, data), most):
        assert piece.shape == ((piece.last - piece.first) // row, row)
        assert piece.first % row == piece.last % row == 0
        assert piece.first > piece.start - row
        assert piece.last < piece.stop + row
        assert piece.shape[0] == 1 or piece.shape[0] * row <= most


@given(shapes, st.data())
@settings(max_examples=30, deadline=None)
def test_a_strategy_on_whole_tensors_sees_them_in_their_shape(shape: tuple[int, ...], data: st.DataObject) -> None:
    start, stop = part(shape, data)

    assert list(slices(tensor(shape, "whole"), start, stop, 1)) == [Slice(start, stop, 0, elements(shape), shape)]


def test_windows_tile_a_block_and_cut_no_rows() -> None:
    assert BLOCK % WINDOW == 0
    seen: list[Granularity] = ["elementwise", "rowwise", "whole"]
    assert [window([tensor((8,)), tensor((8,), granularity)], 8) for granularity in seen] == [WINDOW, BLOCK, BLOCK]
