"""Writing past the page cache, against the bytes of the file: whole pages, tails, and systems that refuse."""

import errno
import fcntl
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from modelmerger.inputs.direct.aligned import PAGE, aligned_memory
from modelmerger.output import direct
from modelmerger.output.direct import DIRECT, write_past_cache


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    try:
        opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT | DIRECT, 0o600)
    except OSError:
        pytest.skip("this file system has no O_DIRECT")
    yield opened
    os.close(opened)


def content_of(length: int, skipped: int = 0) -> memoryview:
    """Random bytes, which begin so many bytes behind a page's beginning."""
    memory = aligned_memory(skipped + length)[skipped : skipped + length]
    memory[:] = random.Random(length).randbytes(length)
    return memory


@pytest.mark.parametrize("length", [0, 1, PAGE, 3 * PAGE, 3 * PAGE + 7])
@pytest.mark.parametrize("offset", [0, 2 * PAGE, PAGE + 8])
@pytest.mark.parametrize("skipped", [0, 8])
def test_any_bytes_are_written(descriptor: int, tmp_path: Path, length: int, offset: int, skipped: int) -> None:
    content = content_of(length, skipped)
    write_past_cache(descriptor, content, offset)
    assert (tmp_path / "file").read_bytes()[offset:] == bytes(content)
    assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & DIRECT


def test_several_threads_whose_writes_are_refused_write_all(
    descriptor: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that takes nothing as long as the descriptor has the flag."""
    write = os.pwrite

    def refusing(to: int, content: memoryview, offset: int) -> int:
        if fcntl.fcntl(to, fcntl.F_GETFL) & DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return write(to, content[:1000], offset)

    monkeypatch.setattr(os, "pwrite", refusing)
    contents = [content_of(8 * PAGE + number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for done in [
            pool.submit(write_past_cache, descriptor, content, 16 * PAGE * number)
            for number, content in enumerate(contents)
        ]:
            done.result()
    written = (tmp_path / "file").read_bytes()
    for number, content in enumerate(contents):
        assert written[16 * PAGE * number :][: len(content)] == bytes(content)


@pytest.mark.parametrize("tail", [0, 5])
def test_any_other_error_is_raised(descriptor: int, monkeypatch: pytest.MonkeyPatch, tail: int) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pwrite", broken)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write_past_cache(descriptor, content_of(PAGE * (not tail) + tail), 0)
    assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & DIRECT
    assert not direct._through_cache.locked()
