import os
from pathlib import Path

import pytest
from modelmerger import InputError
from modelmerger.inputs.regular_files import open_regular, read_small


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


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
