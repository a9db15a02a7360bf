"""What a plugin that opens models gets: only regular files inside the model's directory, or in the blobs of its Hub cache."""

import os
from pathlib import Path

import pytest
from inputs.watching import at_once
from modelmerger import InputChangedError, InputError, LoadContext, read_beside
from modelmerger.inputs.loading import check_beside, list_directory, resolve_inside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`model` with `file` in it, beside `outside`, which has a file of the same name."""
    for name in ("model", "outside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(name.encode())
    return tmp_path / "model"


def test_a_plain_file_is_where_it_is(folder: Path) -> None:
    assert resolve_inside(folder / "file", folder) == folder / "file"
    assert read_beside(folder, "file") == b"model"


def test_what_is_not_there_is_none(folder: Path) -> None:
    assert read_beside(folder, "absent") is None


@pytest.mark.parametrize("target", ["file", "./file", "sub/../file", "{folder}/file", "other"])
def test_a_link_that_stays_inside_is_followed(folder: Path, target: str) -> None:
    (folder / "sub").mkdir()
    (folder / "other").symlink_to("file")
    (folder / "link").symlink_to(target.format(folder=folder))

    assert resolve_inside(folder / "link", folder) == folder / "file"
    assert read_beside(folder, "link") == b"model"


@pytest.mark.parametrize(
    "target", ["../outside/file", "{folder}/../outside/file", "sub/file", "/etc/hostname", "../absent"]
)
def test_a_link_that_leads_out_is_refused_with_its_target(folder: Path, target: str) -> None:
    (folder / "sub").symlink_to("../outside")
    (folder / "link").symlink_to(target.format(folder=folder))

    with pytest.raises(InputError, match="is a link that leads out of the model's directory, to ") as refusal:
        read_beside(folder, "link")
    assert os.path.realpath(folder / "link") in refusal.value.problems[0].message


def test_a_neighbour_whose_name_begins_alike_is_outside(folder: Path) -> None:
    (folder.parent / "model-2").mkdir()
    (folder.parent / "model-2" / "file").touch()
    (folder / "link").symlink_to("../model-2/file")

    with pytest.raises(InputError):
        resolve_inside(folder / "link", folder)


def test_a_loop_of_links_is_refused(folder: Path) -> None:
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")

    with at_once(), pytest.raises(InputError):
        read_beside(folder, "one")


def test_the_models_own_directory_may_be_a_link(folder: Path) -> None:
    (folder.parent / "alias").symlink_to("model")
    (folder / "link").symlink_to("file")

    assert read_beside(folder.parent / "alias", "link") == b"model"


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("../../blobs/abc", True),
        ("../../blobs/deep/abc", False),
        ("../../refs/main", False),
        ("../other/abc", False),
        ("../../../models--x--y/blobs/abc", False),
    ],
)
def test_links_of_a_snapshot_lead_to_the_blobs_of_the_same_repository(
    tmp_path: Path, target: str, allowed: bool
) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "rev"
    snapshot.mkdir(parents=True)
    place = Path(os.path.normpath(snapshot / target))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(b"content")
    (snapshot / "file").symlink_to(target)

    if allowed:
        assert read_beside(snapshot, "file") == b"content"
    else:
        with pytest.raises(InputError):
            read_beside(snapshot, "file")


def test_a_blob_that_is_a_link_itself_is_refused(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "rev"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (tmp_path / "secret").touch()
    (blobs / "abc").symlink_to(tmp_path / "secret")
    (snapshot / "file").symlink_to("../../blobs/abc")

    with pytest.raises(InputError):
        read_beside(snapshot, "file")


def test_a_file_over_the_limit_is_not_read(folder: Path) -> None:
    assert read_beside(folder, "file", 5) == b"model"
    with pytest.raises(InputError, match="is 5 bytes long, more than the 4 allowed"):
        read_beside(folder, "file", 4)


def test_refusals_says_what_reading_would_raise(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("../outside/file")

    with at_once():
        problems = check_beside(folder, ["file", "pipe", "link", "absent"], 4)

    assert [(Path(problem.where).name, problem.message.split(",")[0].split(".")[0]) for problem in problems] == [
        ("file", "is 5 bytes long"),
        ("pipe", "is not a regular file"),
        ("link", "is a link that leads out of the model's directory"),
        ("absent", "cannot be opened: No such file or directory"),
    ]


def test_names_are_sorted_and_a_directory_that_is_none_is_said(folder: Path) -> None:
    (folder / "a").touch()

    assert list_directory(folder) == ["a", "file"]
    with pytest.raises(InputError, match="cannot be listed: Not a directory"):
        list_directory(folder / "file")


def test_an_opened_file_is_read_by_position_as_long_as_it_is_the_same(folder: Path) -> None:
    context = LoadContext()
    file = context.open_file(folder / "file")
    buffer = bytearray(3)

    context.files.read(file, 2, memoryview(buffer))
    assert (buffer, file.size, file.path) == (b"del", 5, str(folder / "file"))

    with pytest.raises(InputChangedError, match="is shorter than when the merge was planned"):
        context.files.read(file, 3, memoryview(buffer))
    context.files.close()
    (folder / "file").write_bytes(b"other")
    with pytest.raises(InputChangedError, match="was written to since the merge was planned"):
        context.files.read(file, 0, memoryview(buffer))


def test_a_file_is_looked_for_inside_its_own_directory_unless_told_otherwise(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "link").symlink_to("../file")
    context = LoadContext()

    assert context.open_file(folder / "sub" / "link", folder).path == str(folder / "file")
    with pytest.raises(InputError, match="leads out of the model's directory"):
        context.open_file(folder / "sub" / "link")


@pytest.mark.parametrize("path", ["../outside/file", "/etc/hostname", "deep/out", "deep/../../outside/file"])
def test_a_name_from_a_models_own_files_leads_nowhere_else(folder: Path, path: str) -> None:
    """By `..`, as an absolute path, or through a linked folder."""
    (folder / "deep").mkdir()
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere/out").write_text("x")
    if path == "deep/out":
        (folder / "deep").rmdir()
        (folder / "deep").symlink_to(folder.parent / "elsewhere")
    with pytest.raises(InputError, match="leads out of the model's directory, to /"):
        LoadContext().open_file(folder / path, inside=folder)
    assert LoadContext().open_file(folder / "../model/file", inside=folder).size == 5


@pytest.mark.parametrize("times", [0, 1])
def test_a_file_of_which_the_system_cannot_say_anything_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """As on a network file system whose server forgot the file; no descriptor is left open."""
    known, asked = os.fstat, []

    def stale(descriptor: int) -> os.stat_result:
        asked.append(descriptor)
        if len(asked) > times:
            raise OSError(116, "Stale file handle")
        return known(descriptor)

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "fstat", stale)
    for read in (lambda: LoadContext().open_file(folder / "file"), lambda: read_beside(folder, "file")):
        asked.clear()
        with pytest.raises(InputError, match=r"model/file: cannot be read: Stale file handle"):
            read()
    monkeypatch.undo()
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_what_was_left_in_the_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / "pointer").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 1\n")

    with pytest.raises(InputError, match=r"is a Git LFS pointer .* Run `git lfs pull` where it was cloned\."):
        LoadContext().open_file(folder / "pointer")
