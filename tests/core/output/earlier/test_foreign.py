import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from modelmerger.output.digests import digest_of_bytes, pieces_of_bytes
from modelmerger.output.earlier.foreign import changed, check_all_ours, unlisted
from modelmerger.output.manifest import FILE, file_entry
from modelmerger.values.errors import OutputError
from modelmerger.values.work.block_record import Piece

FILES = {
    "config.json": b"{}",
    "licenses/a/LICENSE": b"do as you like",
    "model.safetensors": b"numbers",
}


@pytest.fixture
def output(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    directory = tmp_path / "merged"
    entries = {}
    for name, content in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
        weights = [Piece(len(content), digest_of_bytes(content), "w")]
        entries[name] = file_entry(weights if name.endswith("safetensors") else pieces_of_bytes(content))
    manifest = {"schema": 1, "plan": "p", "files": entries, "companions": ["README.md"]}
    (directory / FILE).write_text(json.dumps(manifest))
    return directory, manifest


def test_an_output_as_it_was_published_is_all_ours(output: tuple[Path, dict[str, Any]]) -> None:
    directory, manifest = output
    for name in ("README.md", ".README.md.new", f".{FILE}.new"):
        (directory / name).touch()

    assert list(unlisted(*output)) == []
    assert list(changed(*output)) == []
    check_all_ours(directory, manifest, keep_extra=False)


def file(path: Path) -> None:
    path.write_text("mine")


def folder(path: Path) -> None:
    path.mkdir()
    (path / "events.out").write_text("mine")


def empty_folder(path: Path) -> None:
    path.mkdir()


def link(path: Path) -> None:
    path.symlink_to("/nowhere")


NAMES = ["notes.txt", ".hidden", "licenses/mine.txt", "licenses/a/more", "zz"]


@pytest.mark.parametrize("make", [file, folder, empty_folder, link])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_listed_is_named(
    output: tuple[Path, dict[str, Any]], name: str, make: Callable[[Path], None]
) -> None:
    directory, manifest = output
    make(directory / name)

    assert list(unlisted(*output)) == [name]
    with pytest.raises(OutputError, match="was put there by no merge, so nothing is overwritten") as raised:
        check_all_ours(directory, manifest, keep_extra=False)
    assert raised.value.problems[0].where == str(directory / name)
    check_all_ours(directory, manifest, keep_extra=True)


@pytest.mark.parametrize("make", [folder, empty_folder, link])
@pytest.mark.parametrize("name", ["config.json", "README.md", FILE])
def test_what_has_a_listed_name_and_is_no_file_is_none_of_ours(
    output: tuple[Path, dict[str, Any]], name: str, make: Callable[[Path], None]
) -> None:
    directory, _ = output
    (directory / name).unlink(missing_ok=True)
    make(directory / name)

    assert list(unlisted(*output)) == [name]


def test_the_first_of_several_is_named_and_the_others_are_counted(output: tuple[Path, dict[str, Any]]) -> None:
    directory, manifest = output
    for name in ("b.gguf", "a.txt", "c"):
        (directory / name).touch()

    with pytest.raises(OutputError, match=r"a\.txt: was put there by no merge \(and 2 more\).*--keep-extra"):
        check_all_ours(directory, manifest, keep_extra=False)


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", b'{"eos_token_id": 7}'), ("config.json", b"[]"), ("model.safetensors", b"trained further")],
)
@pytest.mark.parametrize("keep_extra", [False, True])
def test_a_file_that_somebody_changed_is_not_overwritten(
    output: tuple[Path, dict[str, Any]], name: str, content: bytes, keep_extra: bool
) -> None:
    directory, manifest = output
    (directory / name).write_bytes(content)

    assert list(changed(*output)) == [name]
    with pytest.raises(OutputError, match="was changed since the merge wrote it, so nothing is overwritten"):
        check_all_ours(directory, manifest, keep_extra=keep_extra)


def test_a_file_that_is_gone_keeps_nothing_from_being_overwritten(output: tuple[Path, dict[str, Any]]) -> None:
    directory, manifest = output
    (directory / "config.json").unlink()

    check_all_ours(directory, manifest, keep_extra=False)


def test_weights_with_a_flipped_bit_may_be_merged_again(output: tuple[Path, dict[str, Any]]) -> None:
    directory, _ = output
    (directory / "model.safetensors").write_bytes(b"numberz")

    assert list(changed(*output)) == []
