"""What holds for every checkpoint, whoever makes it: reads of a part, at the same time, and into any buffer."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from modelmerger.testing.checks.check import works
from modelmerger.values.checkpoint import Checkpoint, TensorInfo

_BEHIND = 8
"""Bytes of a buffer behind what is read, which are to stay as they are."""
_FILLED = 0xA5


def read(checkpoint: Checkpoint, tensor: str, start: int = 0, stop: int | None = None) -> bytes:
    """Elements of a tensor, as they are stored. Raises `AssertionError` where they cannot be read."""
    info = checkpoint.tensors[tensor]
    stop = info.elements if stop is None else stop
    length = info.span(start, stop)[1]
    buffer = bytearray([_FILLED] * (length + _BEHIND))
    with works(f"reading elements {start} to {stop} of {tensor}"):
        try:
            checkpoint.read(tensor, start, stop, memoryview(buffer)[:length])
        except (ValueError, TypeError, IndexError, KeyError, RuntimeError, OSError) as error:
            what = f"reading elements {start} to {stop} of {tensor} raised {type(error).__name__}: {error}"
            raise AssertionError(f"{what}. Any part of a tensor may be read, also none of it.") from error
    return bytes(buffer[:length])


def assert_slices(checkpoint: Checkpoint, who: str) -> None:
    """Raises `AssertionError` where a part of a tensor is not that part of the whole."""
    for name, info in checkpoint.tensors.items():
        whole = read(checkpoint, name)
        for start, stop in _parts(info):
            first, length = info.span(start, stop)
            if read(checkpoint, name, start, stop) != whole[first : first + length]:
                raise AssertionError(
                    f"{who}: elements {start} to {stop} of {name} are not those of the whole tensor. "
                    "`start` and `stop` count elements of the flattened tensor."
                )
        _assert_ranges(checkpoint, name, whole, who)


def _assert_ranges(checkpoint: Checkpoint, name: str, whole: bytes, who: str) -> None:
    info = checkpoint.tensors[name]
    ranges = [part for part in _parts(info) if part[0] < part[1]]
    due = b"".join(whole[first : first + length] for first, length in (info.span(*part) for part in ranges))
    found = bytearray(len(due))
    checkpoint.read_ranges(name, ranges, memoryview(found))
    if found != due:
        raise AssertionError(
            f"{who}: read_ranges of {name} does not give what read gives of one range after the other."
        )


def assert_threads(checkpoint: Checkpoint, who: str) -> None:
    """Raises `AssertionError` where several threads do not read what one does."""
    parts = [(name, *part) for name, info in checkpoint.tensors.items() for part in _parts(info)]
    alone = [read(checkpoint, *part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            if list(pool.map(lambda part: read(checkpoint, *part), parts)) != alone:
                raise AssertionError(
                    f"{who}: several threads do not read what one does. Keep no position and no buffer in the "
                    "checkpoint: read at an offset, as `context.files` does."
                )


def assert_counted(checkpoint: Checkpoint, who: str) -> None:
    """Raises `AssertionError` where `bytes_to_read` of parts do not add up to that of the whole."""
    for name, info in checkpoint.tensors.items():
        middle = info.elements // 2
        parts = [checkpoint.bytes_to_read(name, 0, middle), checkpoint.bytes_to_read(name, middle, info.elements)]
        whole = checkpoint.bytes_to_read(name, 0, info.elements)
        if sum(parts) != whole or min(parts) < 0:
            raise AssertionError(
                f"{who}: bytes_to_read says {parts[0]} and {parts[1]} of two halves of {name}, and {whole} of all of "
                "it. Parts must add up to the whole, or the plan is wrong."
            )


def _parts(info: TensorInfo) -> Iterator[tuple[int, int]]:
    """The ends, the middle, single elements and none of them; of dtypes below a byte, whole bytes."""
    step = 2 if info.span(0, 1)[1] == 0 else 1
    last = info.elements
    found = {
        (0, 0),
        (0, last // 2),
        (last // 3, last),
        (last // 3, 2 * last // 3),
        (last, last),
        (last - 1, last),
        (0, 1),
    }
    for start, stop in sorted(found):
        if 0 <= start <= stop <= last and start % step == 0 and (stop % step == 0 or stop == last):
            yield start, stop
