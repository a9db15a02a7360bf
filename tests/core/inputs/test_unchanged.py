import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve
from modelmerger import FileIdentity, InputChangedError
from modelmerger.inputs.unchanged import recheck, reopened
from modelmerger.values.file_identity import identify


@pytest.fixture
def made(tmp_path: Path) -> list[FileIdentity]:
    paths = [tmp_path / str(number) for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * 100)
    return [identify(path, path.stat()) for path in paths]


def test_an_untouched_file_passes(made: list[FileIdentity]) -> None:
    Path(made[0].path).read_bytes()
    recheck(made[0])
    descriptor = reopened(made[0])
    assert os.pread(descriptor, 200, 0) == bytes(100)
    os.close(descriptor)


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ("device", "was replaced by another file"),
        ("inode", "was replaced by another file"),
        ("size", "was 101 bytes when the merge was planned and is 100 now"),
        ("mtime_ns", "was written to"),
        ("ctime_ns", "was written to"),
    ],
)
@pytest.mark.parametrize("look", [recheck, reopened])
def test_each_part_of_an_identity_counts(
    made: list[FileIdentity], field: str, sentence: str, look: Callable[[FileIdentity], object]
) -> None:
    before = os.listdir("/proc/self/fd")

    with pytest.raises(InputChangedError, match=sentence):
        look(evolve(made[0], **{field: getattr(made[0], field) + 1}))

    assert os.listdir("/proc/self/fd") == before


def test_a_file_that_is_gone_is_not_opened_again(made: list[FileIdentity]) -> None:
    Path(made[0].path).unlink()

    with pytest.raises(InputChangedError, match="cannot be opened any more"):
        reopened(made[0])


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
