import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from modelmerger.output.journal import Journal, append, block_line, header, read_journal, tree_line
from modelmerger.values.work.block_record import BlockRecord, Piece

DIGEST = "0a" * 32
ONE, TWO = (Piece(3, DIGEST, "x y"),), (Piece(1, DIGEST), Piece(2, DIGEST, "weight"))
RECORDS = {
    (0, 0): BlockRecord(ONE),
    (0, 1): BlockRecord(TWO, {"clamped values": 3}, {"weight": {"norm": 0.1, "cosine": float("inf")}}),
}


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def write(path: Path, *lines: dict[str, object]) -> None:
    descriptor = os.open(path / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for line in lines:
        append(descriptor, line)
    os.close(descriptor)


def lines_of(records: dict[tuple[int, int], BlockRecord]) -> list[dict[str, object]]:
    return [block_line(file, block, record) for (file, block), record in records.items()]


def test_what_was_written_is_read_again(tmp_path: Path, directory: int) -> None:
    write(tmp_path, header("plan"), *lines_of(RECORDS), tree_line(12), tree_line(13))

    assert read_journal(directory) == Journal("plan", RECORDS, 13)


def test_the_last_line_of_a_block_counts(tmp_path: Path, directory: int) -> None:
    write(tmp_path, header("plan"), block_line(0, 0, BlockRecord(ONE)), block_line(0, 0, BlockRecord(TWO)))

    assert read_journal(directory) == Journal("plan", {(0, 0): BlockRecord(TWO)})


@pytest.mark.parametrize(
    "damage",
    [
        b'{"file": 0, "blo\n',
        b"\0\0\0\0\0\n",
        b"\xff\xfe\n",
        b"7\n[]\nnull\n",
        b'{"file": "0", "block": 0, "pieces": []}\n',
        b'{"file": 0, "block": 0}\n',
        b'{"file": 0, "block": 0, "pieces": "5"}\n',
        b'{"file": 0, "block": 0, "pieces": [5]}\n',
        b'{"file": 0, "block": 0, "pieces": ["5 aa"]}\n',
        b'{"file": 0, "block": 0, "pieces": [], "counts": {"x": "y"}}\n',
        b'{"file": 0, "block": 0, "pieces": [], "observed": {"x": 1}}\n',
        b'{"tree": "x"}\n',
        b"[" * 100_000 + b"\n",
        b'{"file": ' + b"9" * 10_000 + b"}\n",
    ],
)
def test_a_damaged_line_costs_no_other_line(tmp_path: Path, directory: int, damage: bytes) -> None:
    write(tmp_path, header("plan"))
    with (tmp_path / "journal").open("ab") as journal:
        journal.write(damage)
    write(tmp_path, *lines_of({(1, 1): BlockRecord(ONE)}))

    assert read_journal(directory) == Journal("plan", {(1, 1): BlockRecord(ONE)})


@pytest.mark.parametrize("length", range(len(json.dumps(header("plan")))))
def test_a_header_that_a_kill_tore_is_ours(tmp_path: Path, directory: int, length: int) -> None:
    (tmp_path / "journal").write_text(json.dumps(header("plan"))[:length])

    assert read_journal(directory) == Journal()


@pytest.mark.parametrize(
    "content", ["Dear diary", "Dear diary\n", "{}\n", '{"modelmerger": 1}\n', '{"plan": "x"}\n', "\n"]
)
def test_a_journal_of_somebody_else_is_none(tmp_path: Path, directory: int, content: str) -> None:
    (tmp_path / "journal").write_text(content)

    assert read_journal(directory) is None


def test_nothing_but_a_regular_file_is_a_journal(tmp_path: Path, directory: int) -> None:
    assert read_journal(directory) is None
    place = tmp_path / "journal"
    os.mkfifo(place)
    assert read_journal(directory) is None
    place.unlink()
    place.mkdir()
    assert read_journal(directory) is None
    place.rmdir()
    write(tmp_path, header("plan"))
    place.rename(tmp_path / "real")
    place.symlink_to("real")
    assert read_journal(directory) is None


def test_a_line_is_written_whole_though_the_system_takes_it_in_pieces(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_some = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, content: write_some(descriptor, content[:3]))
        write(tmp_path, header("plan"), *lines_of(RECORDS))

    assert read_journal(directory) == Journal("plan", RECORDS)
