"""Reading past the page cache, against the bytes of the files: aligned or not, with a device that refuses, and not."""

import errno
import mmap
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faults.stopping import ended, fork
from modelmerger import FileIdentity, InputChangedError, InputError
from modelmerger.inputs.direct.aligned import PAGE, aligned_memory, page_of, pages_for
from modelmerger.inputs.direct.amounts import PIECE, held_for, piece_for
from modelmerger.inputs.direct.open_file import STRETCH, OpenFile
from modelmerger.inputs.direct.page_cache import cached_pages
from modelmerger.inputs.direct.read_ahead import Piece, ReadAhead, pieces
from modelmerger.inputs.files import InputFiles
from modelmerger.values.file_identity import identify
from modelmerger.values.options.core import Io

CONTENT = random.Random(0).randbytes(3 * PIECE // 2 + 12_345)


def takes_direct(folder: Path) -> bool:
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_DIRECT))
    except (OSError, AttributeError):
        return False
    return True


@pytest.fixture
def file(tmp_path: Path) -> FileIdentity:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with path.open("rb") as opened:
        os.fdatasync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return identify(path, path.stat())


def cached(file: FileIdentity) -> int:
    """How many pages of a file the page cache holds."""
    descriptor = os.open(file.path, os.O_RDONLY)
    try:
        if (found := cached_pages(descriptor, 0, file.size)) is None:
            pytest.skip("this system does not say what its page cache holds")
        return found
    finally:
        os.close(descriptor)


def read(files: InputFiles, file: FileIdentity, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    files.read(file, offset, memoryview(buffer))
    return bytes(buffer)


SPANS = [(0, 1), (1, 4095), (4095, 2), (8192, 4096), (12_345, 200_000), (PIECE - 5, 10), (len(CONTENT) - 7, 7)]


@pytest.mark.parametrize("io", ["auto", "direct", "buffered"])
@pytest.mark.parametrize("announced", [True, False])
def test_any_bytes_of_a_file_are_those_bytes(file: FileIdentity, io: Io, announced: bool) -> None:
    files = InputFiles(io=io)
    for offset, length in (*SPANS, (3, len(CONTENT) - 3)):
        if announced:
            files.prefetch(file, offset, length)
        assert read(files, file, offset, length) == CONTENT[offset : offset + length]
    files.close()


def test_what_is_said_to_be_read_comes_in_slices_of_any_length(file: FileIdentity) -> None:
    files = InputFiles(io="direct")
    files.prefetch(file, 77, len(CONTENT) - 77)
    chance, offset, found = random.Random(1), 77, b""
    while offset < len(CONTENT):
        length = min(chance.randrange(1, 1 << 20), len(CONTENT) - offset)
        found += read(files, file, offset, length)
        offset += length
    assert found == CONTENT[77:]
    files.close()


@pytest.mark.parametrize("io", ["auto", "direct"])
def test_nothing_is_left_in_the_page_cache(tmp_path: Path, file: FileIdentity, io: Io) -> None:
    if not takes_direct(tmp_path) or cached(file):
        pytest.skip("this file system has no O_DIRECT, or keeps what it is told to drop")
    files = InputFiles(io=io)
    files.prefetch(file, 0, PIECE)
    assert read(files, file, 0, len(CONTENT)) == CONTENT
    assert cached(file) <= 20  # the end of the file, which is less than it pays to read past the page cache
    files.close()


def test_what_is_in_the_page_cache_is_not_fetched(file: FileIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(file.path).read_bytes()
    if cached(file) < len(CONTENT) // PAGE:
        pytest.skip("the page cache does not keep it")
    monkeypatch.setattr(ReadAhead, "expect", lambda *_: pytest.fail("it is there already"))
    files = InputFiles(io="auto")
    files.prefetch(file, 0, len(CONTENT))
    assert read(files, file, 5, 100_000) == CONTENT[5:100_005]
    files.close()


def test_the_page_cache_is_looked_into_once_a_stretch(file: FileIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(file.path).read_bytes()
    looks: list[tuple[int, int]] = []

    def looked(descriptor: int, begin: int, end: int) -> int | None:
        looks.append((begin, end))
        return cached_pages(descriptor, begin, end)

    if cached(file) < len(CONTENT) // PAGE:
        pytest.skip("the page cache does not keep it")
    monkeypatch.setattr("modelmerger.inputs.direct.open_file.cached_pages", looked)
    files = InputFiles(io="auto")
    for _ in range(2):
        files.prefetch(file, 5, len(CONTENT) - 5)
        for offset in range(0, len(CONTENT), 1 << 18):
            assert read(files, file, offset, min(1 << 18, len(CONTENT) - offset)) == CONTENT[offset:][: 1 << 18]
    assert looks == [(0, STRETCH), (STRETCH, len(CONTENT))]
    files.close()


def test_what_was_found_in_the_page_cache_counts_until_it_is_forgotten(
    file: FileIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = 2 * STRETCH // PAGE
    there = "modelmerger.inputs.direct.open_file.cached_pages"
    monkeypatch.setattr(there, lambda _, begin, end: min(held, (end - 1) // PAGE - begin // PAGE + 1))
    opened, size = OpenFile(os.open(file.path, os.O_RDONLY)), 2 * STRETCH - 5
    assert opened.seems_cached(3, 100, PAGE, size)
    assert opened.seems_cached(STRETCH - 1, size, PAGE, size)
    held = 1
    assert opened.seems_cached(3, size, PAGE, size)
    opened.forget_cached()
    assert not opened.seems_cached(3, size, PAGE, size)
    assert opened.seems_cached(3, 100, PAGE, size)  # whatever became of what lies around it
    opened.retire()


@pytest.mark.parametrize("announced", [True, False])
def test_bytes_that_the_page_cache_gave_up_since_they_were_found(
    tmp_path: Path, file: FileIdentity, announced: bool
) -> None:
    if not takes_direct(tmp_path) or cached(file):
        pytest.skip("this file system has no O_DIRECT, or keeps what it is told to drop")
    Path(file.path).read_bytes()
    files = InputFiles(io="auto")
    files.prefetch(file, 0, len(CONTENT))
    with Path(file.path).open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert not cached(file)
    if announced:
        files.prefetch(file, 0, len(CONTENT))
    assert read(files, file, 3, len(CONTENT) - 3) == CONTENT[3:]
    files.prefetch(file, 0, len(CONTENT))  # by now it is known, and most of it is fetched again
    assert read(files, file, 3, len(CONTENT) - 3) == CONTENT[3:]
    files.close()


@pytest.mark.parametrize("when", ["it is opened", "it is read"])
def test_a_file_system_that_refuses_is_read_through_the_page_cache(
    file: FileIdentity, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    opens, reads, direct, dropped = os.open, os.preadv, set[int](), []

    def opening(path: object, flags: int, *more: object, **named: object) -> int:
        if flags & os.O_DIRECT and when == "it is opened":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        descriptor = opens(path, flags, *more, **named)  # type: ignore[arg-type]
        direct.add(descriptor) if flags & os.O_DIRECT else direct.discard(descriptor)
        return descriptor

    def reading(descriptor: int, *arguments: object) -> int:
        if descriptor in direct:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return reads(descriptor, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "preadv", reading)
    monkeypatch.setattr(os, "posix_fadvise", lambda _, offset, length, advice: dropped.append((offset, length, advice)))
    files = InputFiles(io="direct")
    files.prefetch(file, 0, PIECE)
    assert read(files, file, 0, len(CONTENT)) == CONTENT
    assert (0, PIECE, os.POSIX_FADV_DONTNEED) in dropped
    files.close()


def test_the_same_file_is_read_past_the_page_cache_whatever_its_name_leads_to(file: FileIdentity) -> None:
    files = InputFiles(io="direct")
    read(files, file, 0, 1)
    os.close(files._open[file]._to_close.pop())
    files._open[file]._direct = -1  # as before it was first read so
    os.rename(file.path, file.path + " moved")
    Path(file.path).write_bytes(bytes(len(CONTENT)))

    assert read(files, file, 0, 1000) == CONTENT[:1000]
    files.close()
    with pytest.raises(InputChangedError):
        read(files, file, 0, 1000)


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("left", [0, 5000, 8192])
def test_a_file_that_ends_early_is_a_changed_input(file: FileIdentity, announced: bool, left: int) -> None:
    files = InputFiles(io="direct")
    read(files, file, 0, 1)
    os.truncate(file.path, left)
    if announced:
        files.prefetch(file, 0, 100_000)

    with pytest.raises(InputChangedError, match="is shorter than when the merge was planned"):
        read(files, file, 0, 100_000)
    files.close()


def test_an_error_of_the_device_is_said_where_the_bytes_are_asked_for(
    file: FileIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    files = InputFiles(io="direct")
    monkeypatch.setattr(os, "preadv", broken)
    files.prefetch(file, 0, 1000)
    with pytest.raises(InputError, match="cannot be read: Input/output error"):
        read(files, file, 0, 10)
    files.close()


class Fetched:
    """A device whose byte at each offset is known, and that counts what is fetched."""

    def __init__(self) -> None:
        self.begins: list[int] = []

    def __call__(self, _: FileIdentity, offset: int, memory: memoryview) -> None:
        self.begins.append(offset)
        memory[:] = bytes((offset + i) % 251 for i in range(len(memory)))


def stretch(offset: int, length: int) -> bytes:
    return bytes((offset + i) % 251 for i in range(length))


def test_memory_is_bounded_and_each_piece_is_fetched_once(file: FileIdentity) -> None:
    device = Fetched()
    with ThreadPoolExecutor(1) as pool:
        ahead = ReadAhead(device, pool, most=3 * PAGE)
        for begin in range(0, 10 * PAGE, PAGE):
            ahead.expect(Piece(file, begin, begin + PAGE))
            assert ahead._held() <= 3 * PAGE
        for begin in range(0, 10 * PAGE, 1024):
            buffer = bytearray(1024)
            assert ahead.take(file, begin, memoryview(buffer)) == 1024
            assert buffer == stretch(begin, 1024)
            assert ahead._held() <= 3 * PAGE
    assert device.begins == list(range(0, 10 * PAGE, PAGE))
    assert ahead._held() == 0


@pytest.mark.parametrize("second", [(5 * PAGE, 20 * PAGE), (PAGE, PAGE)])
def test_what_two_stretches_share_is_fetched_once(file: FileIdentity, second: tuple[int, int]) -> None:
    """Blocks of rows at the end of one and at the beginning of the next."""
    device, end = Fetched(), max(9 * PAGE, sum(second))
    with ThreadPoolExecutor(2) as pool:
        ahead = ReadAhead(device, pool)
        for begin, length in ((0, 9 * PAGE), second):
            ahead.expect(Piece(file, begin, begin + length))
        found = bytearray()
        while len(found) < end:
            buffer = bytearray(min(3 * PAGE, end - len(found)))
            count = ahead.take(file, len(found), memoryview(buffer))
            assert count > 0
            found += buffer[:count]
    assert found == stretch(0, end)
    assert device.begins == [0, 9 * PAGE][: 1 + (end > 9 * PAGE)]


def test_a_piece_is_taken_from_where_its_reader_begins(file: FileIdentity) -> None:
    device = Fetched()
    with ThreadPoolExecutor(1) as pool:
        ahead = ReadAhead(device, pool)
        ahead.expect(Piece(file, 0, 9 * PAGE))
        buffer = bytearray(PAGE)
        assert ahead.take(file, 2 * PAGE + 7, memoryview(buffer)) == PAGE
        assert buffer == stretch(2 * PAGE + 7, PAGE)
        assert ahead.take(file, 9 * PAGE, memoryview(buffer)) == 0
    assert device.begins == [0]


def test_what_is_expected_and_never_read_makes_room(file: FileIdentity) -> None:
    device = Fetched()
    with ThreadPoolExecutor(1) as pool:
        ahead = ReadAhead(device, pool, most=2 * PAGE)
        for begin in range(0, 6 * PAGE, PAGE):
            ahead.expect(Piece(file, begin, begin + PAGE))
        buffer = bytearray(PAGE)
        assert ahead.take(file, 5 * PAGE, memoryview(buffer)) == PAGE
        assert buffer == stretch(5 * PAGE, PAGE)
        assert ahead.take(file, 7 * PAGE, memoryview(buffer)) == 0  # nobody said so


def test_small_pieces_do_not_hold_the_memory_of_large_ones(file: FileIdentity) -> None:
    """Of a model whose tensors are large and small, what is held stays within its bound."""
    with ThreadPoolExecutor(1) as pool:
        ahead = ReadAhead(Fetched(), pool, most=64 * PAGE)
        sizes = [16, 16, 16, 16, *[1] * 60] * 3
        begins = [sum(sizes[:number]) * PAGE for number in range(len(sizes))]
        for begin, size in zip(begins, sizes, strict=True):
            ahead.expect(Piece(file, begin, begin + size * PAGE))
        for begin, size in zip(begins, sizes, strict=True):
            buffer = memoryview(bytearray(size * PAGE))
            assert ahead.take(file, begin, buffer) == size * PAGE
            assert bytes(buffer) == stretch(begin, size * PAGE)
            assert ahead._held() + sum(map(len, ahead._free)) <= 64 * PAGE


def test_memory_that_the_device_writes_to_is_not_used_again(file: FileIdentity) -> None:
    going_on, fetched = threading.Event(), Fetched()

    def slow(of: FileIdentity, offset: int, memory: memoryview) -> None:
        if offset == 0:
            assert going_on.wait(20)
        fetched(of, offset, memory)

    with ThreadPoolExecutor(2) as pool:
        ahead = ReadAhead(slow, pool, most=2 * PAGE)
        for begin in range(0, 5 * PAGE, PAGE):
            ahead.expect(Piece(file, begin, begin + PAGE))
        for begin in (4 * PAGE, 3 * PAGE):  # makes room, which the first piece does not give yet
            buffer = bytearray(PAGE)
            assert ahead.take(file, begin, memoryview(buffer)) == PAGE
            assert buffer == stretch(begin, PAGE)
            assert ahead._held() >= PAGE
        going_on.set()
    assert ahead._held() == 0


@pytest.mark.parametrize("threads", [1, 2, 4, 8, 16, 32])
def test_all_threads_together_hold_no_more_than_is_promised(threads: int) -> None:
    piece = piece_for(threads)
    assert piece % PAGE == 0
    assert threads * held_for(threads) <= 42 << 20
    assert threads > 2 or piece == PIECE


def test_a_fork_reads_with_threads_of_its_own(file: FileIdentity) -> None:
    files = InputFiles(io="direct")
    files.prefetch(file, 0, PIECE)
    assert read(files, file, 0, 1000) == CONTENT[:1000]

    def reads() -> int:
        files.prefetch(file, 2000, PIECE)
        return 0 if read(files, file, 1000, PIECE) == CONTENT[1000 : 1000 + PIECE] else 1

    assert ended(fork(reads, Path(file.path + " said")), 30) == 0
    assert read(files, file, 1000, 1000) == CONTENT[1000:2000]
    files.close()


def test_pieces_tile_a_stretch(file: FileIdentity) -> None:
    found = list(pieces(file, 100, 2 * PIECE + 5))
    assert [(piece.begin, piece.end) for piece in found] == [
        (100, 100 + PIECE),
        (100 + PIECE, 100 + 2 * PIECE),
        (100 + 2 * PIECE, 105 + 2 * PIECE),
    ]
    assert [piece.size for piece in found] == [PIECE + PAGE, PIECE + PAGE, PAGE]


def test_memory_is_of_whole_pages() -> None:
    import numpy as np

    memory = aligned_memory(5000)
    assert len(memory) == 8192
    assert np.frombuffer(memory, np.uint8).ctypes.data % mmap.PAGESIZE == 0
    assert (page_of(4095), page_of(4096), pages_for(0), pages_for(1), pages_for(4096)) == (0, 4096, 0, 4096, 4096)


def test_what_is_fetched_after_all_was_closed_leaves_nothing_open(
    file: FileIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece that waits for its turn opens the file again."""
    files, begun, go_on = InputFiles(io="direct"), threading.Event(), threading.Event()
    read_past = OpenFile.read_past

    def waits(self: OpenFile, buffer: memoryview, offset: int) -> int:
        begun.set()
        go_on.wait(10)
        return read_past(self, buffer, offset)

    monkeypatch.setattr(OpenFile, "read_past", waits)
    before = len(os.listdir("/proc/self/fd"))
    for offset in range(0, len(CONTENT), 100_000):  # more than are fetched at a time
        files.prefetch(file, offset, min(100_000, len(CONTENT) - offset))
    assert begun.wait(10)
    files.close()
    go_on.set()
    assert files._pool is not None
    files._pool[1].shutdown()
    assert len(os.listdir("/proc/self/fd")) == before
    assert files._open == {}
