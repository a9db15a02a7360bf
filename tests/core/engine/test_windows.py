"""Windows of a block: their bytes, their order, and memory that is not made anew before it is written."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from modelmerger.engine.arithmetic import Workspace
from modelmerger.engine.windows import Windows
from modelmerger.planning.cost import BEHIND


class Slow:
    """A writer that waits until it may go on, and keeps what it was given, by offset."""

    def __init__(self, error: Exception | None = None) -> None:
        self.going_on = threading.Event()
        self.written: dict[int, bytes] = {}
        self.error = error

    def write(self, handle: int, file: int, content: memoryview, offset: int) -> None:
        assert (handle, file) == (3, 1)
        assert self.going_on.wait(20)
        if self.error is not None:
            raise self.error
        self.written[offset] = bytes(content)

    def open_file(self, file: int) -> int:
        return file

    def flush(self, *_: int) -> None: ...

    def close_file(self, *_: int) -> None: ...


def fill(windows: Windows, number: int, length: int) -> None:
    memory, tensor = windows.next(length)
    assert len(memory) == len(tensor) == length
    tensor.fill_(number)
    assert memory[0] == number
    windows.write()


@pytest.mark.parametrize("behind", [True, False])
def test_every_window_is_written_where_it_belongs(behind: bool) -> None:
    writer = Slow()
    writer.going_on.set()
    with ThreadPoolExecutor(BEHIND) as pool:
        with Windows(writer, 3, 1, 100, Workspace(), pool if behind else None) as windows:
            for number in range(10):
                fill(windows, number, 50 + number)
        offsets = [100 + sum(range(50, 50 + number)) for number in range(10)]
        assert writer.written == {offsets[n]: bytes([n]) * (50 + n) for n in range(10)}


def test_memory_that_is_being_written_is_left_alone() -> None:
    """As many windows as may be on their way are made without waiting, and the next one waits."""
    writer = Slow()
    with ThreadPoolExecutor(BEHIND) as pool:
        with Windows(writer, 3, 1, 0, Workspace(), pool) as windows:
            for number in range(BEHIND):
                fill(windows, number, 10)
            windows.next(10)[1].fill_(99)
            assert not writer.written
            threading.Timer(0.05, writer.going_on.set).start()
            windows.write()
            windows.next(10)[1].fill_(77)  # only now is the first one written
            assert writer.written[0] == bytes(10)
        assert writer.written == {0: bytes(10), 10: bytes([1]) * 10, 20: bytes([99]) * 10}


def test_what_cannot_be_written_is_raised_when_the_block_ends() -> None:
    writer = Slow(OSError("full"))
    writer.going_on.set()
    with (
        ThreadPoolExecutor(BEHIND) as pool,
        pytest.raises(OSError, match="full"),
        Windows(writer, 3, 1, 0, Workspace(), pool) as windows,
    ):
        fill(windows, 1, 10)


def test_an_error_of_the_block_itself_comes_first() -> None:
    writer = Slow(OSError("full"))
    writer.going_on.set()
    with (
        ThreadPoolExecutor(BEHIND) as pool,
        pytest.raises(ValueError, match="mine"),
        Windows(writer, 3, 1, 0, Workspace(), pool) as windows,
    ):
        fill(windows, 1, 10)
        raise ValueError("mine")
