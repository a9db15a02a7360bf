"""One place under two names, as a bind mount makes it; the names are faked, for to mount takes rights."""

import os
from pathlib import Path
from typing import Any

import pytest
from modelmerger.inputs.one_place import Place, identity, is_or_lies_in


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`here/model`, which is seen as `there` too."""
    (tmp_path / "here" / "model" / "inner").mkdir(parents=True)
    (tmp_path / "there" / "inner").mkdir(parents=True)
    stat = os.stat

    def seen(path: Any, **more: Any) -> os.stat_result:
        return stat(str(path).replace(str(tmp_path / "there"), str(tmp_path / "here" / "model")), **more)

    monkeypatch.setattr(os, "stat", seen)
    return tmp_path


@pytest.mark.parametrize("path", ["there", "there/new", "there/inner/new/newer"])
def test_a_second_name_of_a_folder_is_that_folder(mounted: Path, path: str) -> None:
    assert is_or_lies_in(mounted / path, mounted / "here" / "model")
    assert Place.of(mounted / "here" / "model").touches(Place.of(mounted / path))


@pytest.mark.parametrize("path", ["here", "here/models", "new", "here/other/model"])
def test_what_lies_beside_or_around_is_not_in_it(mounted: Path, path: str) -> None:
    assert not is_or_lies_in(mounted / path, mounted / "here" / "model")


def test_one_of_two_may_lie_in_the_other(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()

    assert Place.of(tmp_path).touches(Place.of(tmp_path / "model"))
    assert Place.of(tmp_path / "model" / "new").touches(Place.of(tmp_path / "model"))
    assert not Place.of(tmp_path / "model").touches(Place.of(tmp_path / "models"))


def test_links_are_followed_and_what_is_not_there_has_no_identity(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to("model")

    assert is_or_lies_in(tmp_path / "link" / "new", tmp_path / "model")
    assert identity(tmp_path / "absent") is None
    assert identity("a\0b") is None
    assert is_or_lies_in(tmp_path / "absent", tmp_path / "absent")
