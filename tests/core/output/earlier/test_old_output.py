import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import directory_state
from modelmerger.output.digests import digest_of_bytes
from modelmerger.output.earlier.old_output import remove_old_output
from modelmerger.output.manifest import FILE, file_entry
from modelmerger.values.work.block_record import Piece

FILES = {
    name: file_entry([Piece(7, digest_of_bytes(b"numbers"), "w")])
    for name in ("model.safetensors", "licenses/a/LICENSE")
}


def output(directory: Path, **more: Any) -> Path:
    for name in FILES:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(b"numbers")
    manifest = {"schema": 1, "plan": "p", "files": FILES, "companions": ["README.md"]} | more
    (directory / FILE).write_text(json.dumps(manifest))
    (directory / "README.md").write_text("# Merged model")
    return directory


def test_what_merges_wrote_is_removed(tmp_path: Path) -> None:
    old, target = output(tmp_path / "old"), output(tmp_path / "merged")
    before = directory_state(target)

    assert remove_old_output(old, target) == []

    assert os.listdir(tmp_path) == ["merged"]
    assert directory_state(target) == before


def test_what_the_new_output_holds_too_is_removed(tmp_path: Path) -> None:
    old = output(tmp_path / "old")
    target = output(tmp_path / "merged", extra=["licenses/mine", "notes.txt", "runs"])
    for name in ("runs/first/events", "notes.txt", "licenses/mine"):
        for directory in (old, target):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_text("mine")
        os.link(old / name, target / name)

    assert remove_old_output(old, target) == []

    assert os.listdir(tmp_path) == ["merged"]
    assert (target / "runs" / "first" / "events").read_text() == "mine"


@pytest.mark.parametrize("number", [0, 1])
def test_what_the_new_output_does_not_hold_is_moved_beside_it(tmp_path: Path, number: int) -> None:
    """What came in after the exchange, also into a folder that is kept, or under a name that is."""
    old, target = output(tmp_path / "old"), output(tmp_path / "merged", extra=["runs", "notes.txt"])
    for directory in (old, target):
        (directory / "runs").mkdir()
        (directory / "runs" / "events").write_text("mine")
        os.utime(directory / "runs" / "events", ns=(5, 5))
    (old / "runs" / "late").write_text("late")
    (old / "notes.txt").write_text("new notes")
    (target / "notes.txt").write_text("notes")
    (old / "licenses" / "b").write_text("theirs")
    for taken in range(number):
        (tmp_path / f"merged.left{f'-{taken + 1}' if taken else ''}").mkdir()
    where = tmp_path / ("merged.left-2" if number else "merged.left")

    (problem,) = remove_old_output(old, target)

    assert (problem.severity, problem.where) == ("warning", str(where))
    found = directory_state(where) or {}
    found.pop(FILE)
    assert found == {"runs/late": b"late", "notes.txt": b"new notes", "licenses/b": b"theirs"}
    assert not old.exists()


def test_a_removal_that_was_killed_goes_on(tmp_path: Path) -> None:
    target = output(tmp_path / "merged")
    for removed in (["model.safetensors"], ["model.safetensors", "README.md", "licenses/a/LICENSE", FILE]):
        old = output(tmp_path / "old")
        for name in removed:
            (old / name).unlink()
        if FILE in removed:
            (old / "licenses" / "a").rmdir()
            (old / "licenses").rmdir()

        assert remove_old_output(old, target) == []
        assert not old.exists()


def test_a_link_in_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    old, target = output(tmp_path / "old"), output(tmp_path / "merged")
    (old / "licenses").rename(tmp_path / "elsewhere")
    (old / "licenses").symlink_to(tmp_path / "elsewhere")

    (problem,) = remove_old_output(old, target)

    assert (tmp_path / "elsewhere" / "a" / "LICENSE").read_bytes() == b"numbers"
    assert (Path(problem.where) / "licenses").is_symlink()
