from pathlib import Path

import pytest
from modelmerger import OutputError
from modelmerger.output.staging import Staging

from tests.core.output.staged import LAYOUT


def test_documents_stand_in_their_folders(target: Path) -> None:
    with Staging(target, "plan", LAYOUT) as staging:
        staging.write_document("config.json", [b"{}"])
        staging.write_document("licenses/a/LICENSE", [b"free"])
        staging.write_document("licenses/b/LICENSE", [b"free too"])

        assert (staging.tree / "config.json").read_bytes() == b"{}"
        assert (staging.tree / "licenses" / "b" / "LICENSE").read_bytes() == b"free too"
        with pytest.raises(OutputError, match="File exists"):
            staging.write_document("config.json", [b"again"])


def test_a_folder_that_is_a_link_is_not_entered(target: Path) -> None:
    outside = target.parent / "outside"
    outside.mkdir()
    with Staging(target, "plan", LAYOUT) as staging:
        (staging.tree / "licenses").symlink_to(outside)
        with pytest.raises(OutputError):
            staging.write_document("licenses/LICENSE", [b"free"])

    assert list(outside.iterdir()) == []


def test_a_document_and_the_folders_to_it_are_on_the_disk(target: Path) -> None:
    """Each new name is followed by an fsync of the folder that it is in, the file's own by one of the file too."""
    seen: list[tuple[str, str]] = []
    with Staging(target, "plan", LAYOUT, lambda name, path: seen.append((name, str(path)))) as staging:
        del seen[:]
        staging.write_document("a/b/file", [b"content"])
        tree = str(staging.tree)

    assert seen == [
        ("create", f"{tree}/a"),
        ("fsync", tree),
        ("create", f"{tree}/a/b"),
        ("fsync", f"{tree}/a"),
        ("create", f"{tree}/a/b/file"),
        ("write", f"{tree}/a/b/file"),
        ("fsync", f"{tree}/a/b/file"),
        ("fsync", f"{tree}/a/b"),
    ]
