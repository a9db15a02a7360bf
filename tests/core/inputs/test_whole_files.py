"""Files that are copied or compared in pieces."""

import os
import tracemalloc
from pathlib import Path

import pytest
from modelmerger import FileIdentity, InputChangedError
from modelmerger.inputs.loading import identify_beside
from modelmerger.inputs.whole_files import content_in_blocks, same_content
from modelmerger.values.layout import BLOCK


def identified(path: Path) -> FileIdentity:
    return identify_beside(path.parent, path.name, 1 << 40)


def test_a_file_comes_in_blocks(tmp_path: Path) -> None:
    content = os.urandom(1000) * 20_000
    (tmp_path / "file").write_bytes(content)

    blocks = list(content_in_blocks(identified(tmp_path / "file")))

    assert [len(block) for block in blocks] == [BLOCK, len(content) - BLOCK]
    assert b"".join(blocks) == content


def test_memory_does_not_depend_on_the_size(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.truncate(tmp_path / "file", 20 * BLOCK)
    file = identified(tmp_path / "file")

    tracemalloc.start()
    total = sum(map(len, content_in_blocks(file)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert total == 20 * BLOCK
    assert peak < 3 * BLOCK


@pytest.mark.parametrize("how", ["renamed over", "deleted", "appended to", "cut", "written to", "written to meanwhile"])
def test_a_file_that_was_changed_is_never_taken_for_what_it_was(tmp_path: Path, how: str) -> None:
    """C15"""
    path = tmp_path / "file"
    path.write_bytes(b"a" * (BLOCK + 5))
    file = identified(path)
    blocks = content_in_blocks(file)
    if how == "renamed over":
        (tmp_path / "new").write_bytes(b"a" * (BLOCK + 5))
        (tmp_path / "new").replace(path)
    elif how == "deleted":
        path.unlink()
    elif how == "appended to":
        path.write_bytes(b"a" * (BLOCK + 6))
    elif how == "cut":
        next(blocks)
        os.truncate(path, BLOCK)
    else:
        if how == "written to meanwhile":
            next(blocks)
        with path.open("r+b") as opened:
            opened.write(b"b")
        os.utime(path, ns=(file.mtime_ns, file.mtime_ns + 1))

    with pytest.raises(InputChangedError, match=r"was planned|cannot be"):
        list(blocks)


def test_contents_are_compared_byte_for_byte(tmp_path: Path) -> None:
    for name, content in {
        "a": b"x" * (3 << 20),
        "same": b"x" * (3 << 20),
        "other": b"x" * (3 << 20 - 1) + b"y",
    }.items():
        (tmp_path / name).write_bytes(content)
    file = identified(tmp_path / "a")

    assert same_content(tmp_path / "same", file)
    assert not same_content(tmp_path / "other", file)
    assert not same_content(tmp_path / "absent", file)
    assert not same_content(tmp_path, file)
