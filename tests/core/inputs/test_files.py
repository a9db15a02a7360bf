import errno
import gc
import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelmerger import FileIdentity, InputChangedError, InputError
from modelmerger.inputs.files import InputFiles
from modelmerger.values.file_identity import identify


def identity(path: Path) -> FileIdentity:
    return identify(path, path.stat())


def read(files: InputFiles, file: FileIdentity, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    files.read(file, offset, memoryview(buffer))
    return bytes(buffer)


@pytest.fixture
def made(tmp_path: Path) -> list[FileIdentity]:
    paths = [tmp_path / str(number) for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 100)
    return [identity(path) for path in paths]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_bytes_are_read_by_position(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(200)))
    files = InputFiles()

    assert read(files, identity(path), 50, 100) == bytes(range(50, 150))
    assert read(files, identity(path), 200, 0) == b""
    files.close()


def test_a_short_read_is_continued(made: list[FileIdentity], monkeypatch: pytest.MonkeyPatch) -> None:
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: preadv(fd, [buffers[0][:7]], offset))

    files = InputFiles()

    assert read(files, made[3], 0, 100) == b"\x03" * 100
    files.close()


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_no_more_files_are_open_than_allowed(made: list[FileIdentity], limit: int) -> None:
    before = descriptors()
    files = InputFiles(limit)
    for _ in range(2):
        for number, file in enumerate(made):
            assert read(files, file, 0, 50) + read(files, file, 50, 50) == bytes([number]) * 100
            assert descriptors() - before <= limit
    files.close()
    assert descriptors() == before


class Paused:
    """`os.preadv` that stops before it reads for the first time, until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self._preadv = os.preadv
        monkeypatch.setattr(os, "preadv", self)

    def __call__(self, descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        if not self.reached.is_set():
            self.reached.set()
            assert self.go_on.wait(30)
        return self._preadv(descriptor, buffers, offset)


@pytest.mark.parametrize("closed", [False, True], ids=["put aside", "closed"])
def test_a_file_in_use_is_closed_when_its_reader_has_left(
    made: list[FileIdentity], monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    before = descriptors()
    files = InputFiles(1)
    paused = Paused(monkeypatch)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(read(files, made[0], 0, 10)))
    reader.start()
    assert paused.reached.wait(30)

    if closed:
        files.close()
        assert descriptors() - before == 1
    assert read(files, made[1], 0, 10) == b"\x01" * 10
    assert descriptors() - before == 2
    paused.go_on.set()
    reader.join(30)

    assert found == [bytes(10)]
    assert descriptors() - before == 1
    files.close()
    assert descriptors() == before


def test_a_file_that_is_put_aside_as_it_is_found_is_opened_again(made: list[FileIdentity]) -> None:
    """Between the look at what is open and the note that somebody reads, another thread opens another file."""
    before = descriptors()
    files = InputFiles(1)

    class Late(dict[Any, Any]):
        def get(self, file: object) -> Any:  # type: ignore[override]  # a stand-in
            found = super().get(file)
            if found is not None and late:
                other = late.pop()
                thread = threading.Thread(target=read, args=(files, other, 0, 1))
                thread.start()
                thread.join(30)
            return found

    files._open = Late()
    late: list[FileIdentity] = []
    read(files, made[0], 0, 1)
    late.append(made[1])

    assert read(files, made[0], 0, 10) == bytes(10)
    assert late == []
    assert descriptors() - before == 1
    files.close()
    assert descriptors() == before


def test_what_is_let_go_of_is_closed(made: list[FileIdentity]) -> None:
    before = descriptors()
    files = InputFiles()
    read(files, made[0], 0, 1)
    assert descriptors() - before == 1

    del files
    gc.collect()

    assert descriptors() == before


def test_files_can_be_read_after_closing(made: list[FileIdentity]) -> None:
    """As those of models that were kept open for longer than whoever opened them."""
    files = InputFiles()
    read(files, made[0], 0, 1)
    files.close()

    assert read(files, made[0], 0, 1) == b"\x00"
    files.close()


THREADS = 8


@pytest.mark.parametrize("limit", [1, 2])
def test_many_threads_read_what_is_theirs(tmp_path: Path, limit: int) -> None:
    """Files are put aside, opened again and closed by others all the time. Every byte says of which file and place it is."""
    numbers = np.arange(1000, dtype="<u4")
    contents = [(numbers + 1000 * file).tobytes() for file in range(5)]
    made = []
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
        made.append(identity(tmp_path / str(number)))
    before = descriptors()
    files = InputFiles(limit)
    wrong: list[object] = []
    over = threading.Event()

    def reader(number: int) -> None:
        chance = random.Random(number)
        try:
            for _ in range(4000):
                file, offset, length = chance.randrange(5), chance.randrange(3000), chance.randrange(1000)
                if chance.random() < 0.1:
                    files.prefetch(made[file], offset, length)
                if read(files, made[file], offset, length) != contents[file][offset : offset + length]:
                    wrong.append((file, offset, length))
        except Exception as error:
            wrong.append(error)

    def closer() -> None:
        while not over.wait(0.0005):
            files.close()

    def counter() -> None:
        while not over.wait(0.0005):
            if (found := descriptors() - before) > limit + THREADS + 1:  # one lists the descriptors
                wrong.append(f"{found} descriptors")

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        readers = [threading.Thread(target=reader, args=(number,)) for number in range(THREADS)]
        others = [threading.Thread(target=other) for other in (closer, counter)]
        for thread in readers + others:
            thread.start()
        for thread in readers:
            thread.join(60)
        over.set()
        for thread in others:
            thread.join(60)
    finally:
        sys.setswitchinterval(switch)
    files.close()

    assert wrong == []
    assert not any(thread.is_alive() for thread in readers + others)
    assert descriptors() == before


def test_a_file_that_was_closed_meanwhile_is_compared_when_it_is_opened_again(made: list[FileIdentity]) -> None:
    files = InputFiles(1)
    read(files, made[0], 0, 1)
    time.sleep(0.01)
    Path(made[0].path).write_bytes(b"\xff" * 100)
    read(files, made[1], 0, 1)  # takes the only place

    with pytest.raises(InputChangedError, match="was written to since the merge was planned"):
        read(files, made[0], 0, 1)
    files.close()


def test_a_file_that_ends_early_is_a_changed_input(made: list[FileIdentity]) -> None:
    files = InputFiles()
    read(files, made[0], 0, 1)
    os.truncate(made[0].path, 50)

    with pytest.raises(InputChangedError, match="is shorter than when the merge was planned"):
        read(files, made[0], 40, 20)
    files.close()


def test_a_disk_that_cannot_be_read_is_a_bad_input(made: list[FileIdentity], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = descriptors()
    files = InputFiles()
    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(InputError, match="cannot be read: Input/output error"):
        read(files, made[0], 0, 1)
    files.close()
    assert descriptors() == before


def test_reading_ahead_is_a_hint(made: list[FileIdentity], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    files = InputFiles()
    files.prefetch(made[0], 0, 100)
    monkeypatch.setattr(os, "preadv", refused)
    monkeypatch.setattr(os, "posix_fadvise", refused)
    files.prefetch(made[0], 0, 100)
    files.close()


@pytest.mark.parametrize("cold", [None, 0, 99])
def test_what_is_in_memory_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cold: int | None) -> None:
    """cold: the byte that a read without waiting does not get."""
    (tmp_path / "file").write_bytes(bytes(100))
    file = identify(tmp_path / "file", (tmp_path / "file").stat())
    asked: list[tuple[int, int]] = []

    def read(_: int, buffers: list[bytearray], offset: int, flags: int) -> int:
        assert flags == os.RWF_NOWAIT
        if offset == cold:
            raise BlockingIOError
        return len(buffers[0])

    monkeypatch.setattr(os, "preadv", read)
    monkeypatch.setattr(os, "posix_fadvise", lambda _, offset, length, advice: asked.append((offset, length)))
    files = InputFiles()

    files.prefetch(file, 0, 100)

    assert asked == ([] if cold is None else [(0, 100)])
    files.close()
