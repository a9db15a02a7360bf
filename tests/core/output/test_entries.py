import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from modelmerger.output.entries import create_file, discard, is_directory, open_directory, open_entry


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[int]:
    """A directory with a file, a folder, and links to both of them, beside a folder that nothing may happen to."""
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "file").write_text("kept")
    directory = tmp_path / "directory"
    (directory / "folder" / "below").mkdir(parents=True)
    (directory / "folder" / "below" / "file").touch()
    (directory / "file").write_text("content")
    (directory / "link to a file").symlink_to(tmp_path / "beside" / "file")
    (directory / "link to a folder").symlink_to(tmp_path / "beside")
    descriptor = open_directory(directory)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("name", ["file", "folder", "link to a file", "link to a folder", "nothing"])
def test_an_entry_is_removed_and_what_a_link_leads_to_stays(inside: int, tmp_path: Path, name: str) -> None:
    before = set(os.listdir(inside))

    discard(name, inside)

    assert set(os.listdir(inside)) == before - {name}
    assert (tmp_path / "beside" / "file").read_text() == "kept"


def test_a_link_to_a_folder_is_no_folder(inside: int) -> None:
    names = [*os.listdir(inside), "nothing"]

    assert [name for name in names if is_directory(name, inside)] == ["folder"]
    with pytest.raises(NotADirectoryError):
        open_directory("link to a folder", inside)
    with pytest.raises(OSError, match="symbolic links"):
        open_entry("link to a file", inside, os.O_WRONLY)


@pytest.mark.parametrize("name", ["file", "folder", "link to a file", "link to a folder"])
def test_what_is_there_is_not_created(inside: int, name: str) -> None:
    with pytest.raises(FileExistsError):
        create_file(name, inside)


def test_nothing_is_created_where_a_link_leads_nowhere(inside: int, tmp_path: Path) -> None:
    os.symlink(tmp_path / "elsewhere", "dangling", dir_fd=inside)

    with pytest.raises(FileExistsError):
        create_file("dangling", inside)
    assert not (tmp_path / "elsewhere").exists()
