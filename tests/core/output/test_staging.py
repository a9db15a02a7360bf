import errno
import os
from pathlib import Path

import pytest
from blake3 import blake3
from modelmerger.output.digests import Piece, pieces_of_bytes
from modelmerger.output.journal import BlockRecord
from modelmerger.output.staging import Staging, close_written, output_errors, staged_size, staging_path
from modelmerger.values.errors import OutputError
from modelmerger.values.layout import BLOCK, Layout, OutputFile

SIZE = BLOCK + 1000
LAYOUT = Layout("test", [OutputFile("weights", SIZE, (), ()), OutputFile("empty", 0, (), ())])
BLOCKS = [b"a" * BLOCK, b"b" * 1000]
PIECES = [pieces_of_bytes(BLOCKS[0]), pieces_of_bytes(BLOCKS[1][:300]) + pieces_of_bytes(BLOCKS[1][300:])]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "merged"


def stage(target: Path, blocks: list[int], plan: str = "plan") -> None:
    """Writes some blocks of the first file and leaves the staging directory behind."""
    with Staging(target, plan, LAYOUT) as staging:
        descriptor = staging.open_for_writing(0)
        for block in blocks:
            staging.write(descriptor, 0, memoryview(BLOCKS[block]), block * BLOCK)
            record = BlockRecord(PIECES[block], {"counted": block})
            staging.record(descriptor, 0, block, record, block * BLOCK, len(BLOCKS[block]))
        close_written(descriptor, staging.tree / "weights")


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


def test_the_second_of_two_is_refused(target: Path) -> None:
    with Staging(target, "plan", LAYOUT):
        with pytest.raises(OutputError, match="by another merge at this moment"), Staging(target, "plan", LAYOUT):
            pass
        assert (staging_path(target) / "model" / "weights").exists()
    with Staging(target, "plan", LAYOUT):
        pass


def test_a_staging_directory_that_goes_before_it_is_opened_is_made_again(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever held it removes it at that moment."""
    root, opening = staging_path(target), os.open

    def late(path: object, *arguments: int, **named: int) -> int:
        if path == root:
            monkeypatch.undo()
            root.rmdir()
        return opening(path, *arguments, **named)  # type: ignore[call-overload,no-any-return]  # a stand-in, or wrong on purpose

    monkeypatch.setattr(os, "open", late)
    with Staging(target, "plan", LAYOUT) as staging:
        assert (staging.root / "journal").exists()


def test_the_directory_that_was_locked_is_the_one_at_the_path(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the opening and the lock, whoever held it removed it, and another made a new one."""
    import fcntl

    root = staging_path(target)
    lock = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        monkeypatch.undo()
        root.rmdir()
        root.mkdir()
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with Staging(target, "plan", LAYOUT) as staging:
        assert os.path.samestat(os.fstat(staging._root_fd), root.stat())
        with pytest.raises(OutputError), Staging(target, "plan", LAYOUT):
            pass


def test_documents_stand_in_their_folders(target: Path) -> None:
    with Staging(target, "plan", LAYOUT) as staging:
        staging.write_document("config.json", b"{}")
        staging.write_document("licenses/a/LICENSE", b"free")
        staging.write_document("licenses/b/LICENSE", b"free too")

        assert (staging.tree / "config.json").read_bytes() == b"{}"
        assert (staging.tree / "licenses" / "b" / "LICENSE").read_bytes() == b"free too"
        with pytest.raises(OutputError, match="File exists"):
            staging.write_document("config.json", b"again")


def test_nothing_stays_open(target: Path) -> None:
    before = os.listdir("/proc/self/fd")
    stage(target, [0])
    with Staging(target, "plan", LAYOUT) as staging, pytest.raises(OutputError):
        staging.write_document("weights/LICENSE", b"in a folder that is a file")
    with pytest.raises(OutputError), Staging(target.parent / "no" / "merged", "plan", LAYOUT):
        pass

    assert os.listdir("/proc/self/fd") == before


def test_removing_takes_all_of_it(target: Path) -> None:
    stage(target, [0])
    with Staging(target, "plan", LAYOUT) as staging:
        staging.write_document("licenses/a/LICENSE", b"free")
        staging.remove()

    assert list(target.parent.iterdir()) == []
    assert staged_size(target) == 0


def test_short_writes_are_continued(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, content, offset: pwrite(fd, content[: 1 << 20], offset))
    stage(target, [0, 1])
    monkeypatch.undo()

    with Staging(target, "plan", LAYOUT) as staging:
        assert len(staging.records) == 2


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "cannot be written: No space left on device. Free some space, then run the same command again."),
        (errno.EDQUOT, "cannot be written: Disk quota exceeded. Free some space, then run the same command again."),
        (errno.EIO, "cannot be written: Input/output error. Check the disk, then run the same command again."),
    ],
)
def test_what_the_system_says_becomes_a_sentence(number: int, sentence: str) -> None:
    with pytest.raises(OutputError) as raised, output_errors(Path("/out/x")):
        raise OSError(number, os.strerror(number))

    assert str(raised.value) == f"/out/x: {sentence}"
