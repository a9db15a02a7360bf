"""What an earlier run has left is kept where it is of the same plan and still has its digests."""

import errno
import os
from pathlib import Path

import pytest
from blake3 import blake3
from modelmerger import Layout, OutputError, OutputFile
from modelmerger.output.parent_folder import staging_path
from modelmerger.output.staging import Staging
from modelmerger.output.staging_directory import staged_size
from modelmerger.values.layout import BLOCK
from modelmerger.values.work.block_record import BlockRecord, Piece

from tests.core.output.staged import BLOCKS, LAYOUT, PIECES, SIZE, stage


def test_files_have_their_size_and_their_disk_from_the_beginning(target: Path) -> None:
    with Staging(target, "plan", LAYOUT) as staging:
        found = {path.name: path.stat() for path in staging.tree.iterdir()}

    assert {name: status.st_size for name, status in found.items()} == {"weights": SIZE, "empty": 0}
    assert found["weights"].st_blocks * 512 >= SIZE
    assert staged_size(target) >= SIZE


def test_a_file_system_that_cannot_reserve_space_gives_the_size_alone(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    with Staging(target, "plan", LAYOUT) as staging:
        assert (staging.tree / "weights").stat().st_size == SIZE


def test_what_lies_in_a_folder_is_kept_alike(target: Path) -> None:
    layout = Layout("test", [OutputFile("sub/weights", SIZE, (), ())])
    with Staging(target, "plan", layout) as staging:
        handle = staging.open_file(0)
        staging.write(handle, 0, memoryview(BLOCKS[1]), BLOCK)
        staging.record(0, 1, BlockRecord(PIECES[1]))
        staging.close_file(handle, 0)
        (staging.tree / "sub/strange").write_bytes(b"x")
        (staging.tree / "other").mkdir()
        staging.sync()

    assert staged_size(target) >= SIZE
    with Staging(target, "plan", layout) as staging:
        assert set(staging.records) == {(0, 1)}
        assert [path.relative_to(staging.tree).as_posix() for path in staging.tree.rglob("*")] == ["sub", "sub/weights"]


def test_blocks_of_the_same_plan_are_kept_with_what_was_counted(target: Path) -> None:
    stage(target, [1])
    stage(target, [0])

    with Staging(target, "plan", LAYOUT) as staging:
        assert not staging.removed_other_plan
        assert {key: record.counts for key, record in staging.records.items()} == {
            (0, 0): {"counted": 0},
            (0, 1): {"counted": 1},
        }
        assert (staging.tree / "weights").read_bytes() == b"".join(BLOCKS)


def test_blocks_of_another_plan_are_not(target: Path) -> None:
    stage(target, [0, 1])

    with Staging(target, "another", LAYOUT) as staging:
        assert staging.removed_other_plan
        assert not staging.records
        assert not any((staging.tree / "weights").read_bytes())


@pytest.mark.parametrize("block", [0, 1])
def test_a_damaged_block_is_not_kept_and_the_others_are(target: Path, block: int) -> None:
    stage(target, [0, 1])
    with (staging_path(target) / "model" / "weights").open("r+b") as file:
        file.seek(block * BLOCK + 500)
        file.write(b"?")

    with Staging(target, "plan", LAYOUT) as staging:
        assert set(staging.records) == {(0, 1 - block)}


def test_a_block_whose_pieces_do_not_fill_it_is_not_kept(target: Path) -> None:
    stage(target, [0])
    journal = staging_path(target) / "journal"
    journal.write_text(journal.read_text().replace(str(PIECES[0][0]), str(Piece(0, blake3(b"").hexdigest()))))

    with Staging(target, "plan", LAYOUT) as staging:
        assert not staging.records


def test_what_is_not_of_the_layout_is_removed_on_resuming(target: Path) -> None:
    stage(target, [0])
    tree = staging_path(target) / "model"
    (tree / "config.json").write_text("{}")
    (tree / "licenses").mkdir()
    (tree / "licenses" / "LICENSE").touch()
    os.truncate(tree / "empty", 5)

    with Staging(target, "plan", LAYOUT):
        assert {path.name: path.stat().st_size for path in tree.iterdir()} == {"weights": SIZE, "empty": 0}


def test_a_journal_without_a_tree_is_begun_anew(target: Path) -> None:
    stage(target, [0])
    (staging_path(target) / "model" / "weights").unlink()
    (staging_path(target) / "model" / "empty").unlink()
    (staging_path(target) / "model").rmdir()

    with Staging(target, "plan", LAYOUT) as staging:
        assert not staging.records
        assert (staging.tree / "weights").stat().st_size == SIZE


def test_a_directory_that_is_none_of_ours_is_left_alone(target: Path) -> None:
    staging_path(target).mkdir()
    (staging_path(target) / "diary").write_text("Dear diary")

    with (
        pytest.raises(OutputError, match="exists and is not a staging directory of a merge"),
        Staging(target, "p", LAYOUT),
    ):
        pass

    assert (staging_path(target) / "diary").read_text() == "Dear diary"


def test_nothing_stays_open_where_there_is_no_room(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="No space left"), Staging(target, "plan", LAYOUT):
        pass

    assert os.listdir("/proc/self/fd") == before
