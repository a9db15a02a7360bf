import errno
import os
import threading
import time
from pathlib import Path

import pytest
from modelmerger.inputs.files import InputFiles, open_regular, read_small, recheck
from modelmerger.values.errors import InputChangedError, InputError
from modelmerger.values.file_identity import FileIdentity, identify


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

    assert read(InputFiles(), made[3], 0, 100) == b"\x03" * 100


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


def test_a_file_in_use_is_not_closed_for_another(made: list[FileIdentity]) -> None:
    before = descriptors()
    files = InputFiles(1)
    held = files._opened(made[0])
    assert read(files, made[1], 0, 1) == b"\x01"
    assert os.pread(held.descriptor, 1, 0) == b"\x00"
    assert descriptors() - before == 2
    del held
    assert descriptors() - before == 1
    files.close()
    assert descriptors() == before


def test_many_threads_read_what_is_theirs(made: list[FileIdentity]) -> None:
    files = InputFiles(2)
    wrong: list[object] = []

    def reader(number: int) -> None:
        try:
            for turn in range(200):
                index = (number + turn) % len(made)
                if read(files, made[index], turn % 50, 50) != bytes([index]) * 50:
                    wrong.append(index)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=reader, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    files.close()
    assert wrong == []


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

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(InputError, match="cannot be read: Input/output error"):
        read(InputFiles(), made[0], 0, 1)


def test_reading_ahead_is_a_hint(made: list[FileIdentity], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    files = InputFiles()
    files.prefetch(made[0], 0, 100)
    monkeypatch.setattr(os, "preadv", refused)
    monkeypatch.setattr(os, "posix_fadvise", refused)
    files.prefetch(made[0], 0, 100)
    files.close()


def test_an_untouched_file_passes(made: list[FileIdentity]) -> None:
    Path(made[0].path).read_bytes()
    recheck(made[0])


def test_a_recheck_says_what_differs(made: list[FileIdentity]) -> None:
    paths = [Path(file.path) for file in made]
    time.sleep(0.01)
    os.truncate(paths[0], 99)
    os.utime(paths[1])
    (paths[2].parent / "new").write_bytes(b"\x02" * 100)
    (paths[2].parent / "new").rename(paths[2])
    paths[3].unlink()
    paths[4].rename(paths[4].with_name("moved"))
    paths[4].symlink_to("moved")

    for file, sentence in zip(
        made,
        [
            "was 100 bytes when the merge was planned and is 99 now",
            "written to",
            "another file",
            "cannot be found",
            "is 5 now",
        ],
        strict=True,
    ):
        with pytest.raises(InputChangedError, match=sentence) as raised:
            recheck(file)
        assert raised.value.problems[0].where == file.path


@pytest.mark.parametrize("kind", ["directory", "FIFO", "link", "nothing", "device"])
def test_only_regular_files_are_opened_and_none_is_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    if kind == "directory":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "real").touch()
        path.symlink_to("real")
    elif kind == "device":
        path = Path("/dev/zero")
    before = descriptors()

    with pytest.raises(InputError) as raised:
        open_regular(path)

    assert raised.value.problems[0].where == str(path)
    assert descriptors() == before


def test_a_small_file_is_read_whole_and_a_larger_one_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    before = descriptors()

    assert read_small(path, 5) == b"12345"
    with pytest.raises(InputError, match="is 5 bytes long, more than the 4 allowed"):
        read_small(path, 4)
    assert descriptors() == before


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
