import os
from pathlib import Path

import pytest
from blake3 import blake3
from modelmerger.inputs.direct.open_file import OpenFile
from modelmerger.inputs.direct.page_cache import cached_pages
from modelmerger.output.digests import (
    PieceDigests,
    block_count,
    differing,
    differing_at_once,
    digest_of_pieces,
    pieces_of_bytes,
    pieces_of_file,
    range_digest,
)
from modelmerger.values.layout import BLOCK
from modelmerger.values.work.block_record import Piece


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 1), (BLOCK, 1), (BLOCK + 1, 2), (3 * BLOCK, 3)])
def test_blocks_are_counted_up(size: int, count: int) -> None:
    assert block_count(size) == count


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 5])
def test_a_file_has_the_digests_of_its_bytes(tmp_path: Path, size: int) -> None:
    content = os.urandom(1000) * (size // 1000 + 1)
    content = content[:size]
    (tmp_path / "file").write_bytes(content)

    blocks = [content[i : i + BLOCK] for i in range(0, size, BLOCK)]
    expected = [Piece(len(block), blake3(block).hexdigest()) for block in blocks]
    assert pieces_of_bytes(content) == expected
    assert pieces_of_file(tmp_path / "file") == expected


def test_pieces_are_digested_as_their_bytes_are_made() -> None:
    digests = PieceDigests()
    for content, tensor in [
        (b"head", ""),
        (b"er", ""),
        (b"12", "a"),
        (b"", "empty"),
        (b"3", "b"),
        (b"4", "b"),
        (b"5", "a"),
    ]:
        digests.add(memoryview(content), tensor)

    made = [(b"header", ""), (b"12", "a"), (b"", "empty"), (b"34", "b"), (b"5", "a")]
    assert digests.pieces() == [Piece(len(content), blake3(content).hexdigest(), tensor) for content, tensor in made]


def test_a_range_is_read_by_position_and_ends_with_the_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 12_000  # more than one piece
    (tmp_path / "file").write_bytes(content)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert range_digest(descriptor, 5, 2_000_005) == blake3(content[5:2_000_005]).hexdigest()
        assert range_digest(descriptor, 3_000_000, 9_999_999) == blake3(content[3_000_000:]).hexdigest()
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("evicted", [False, True])
def test_pieces_that_differ_are_found_on_all_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evicted: bool
) -> None:
    """A read that does not wait has the system read ahead through the page cache, so that the device works twice."""
    content = bytes(range(251)) * 24_000
    cuts = [0, 3, 3, 4_096, 2_500_000, 2_500_001, len(content)]
    pieces = [Piece(b - a, blake3(content[a:b]).hexdigest(), str(a)) for a, b in zip(cuts, cuts[1:], strict=False)]
    pieces[3] = Piece(pieces[3].length, "00", "bad")
    (tmp_path / "file").write_bytes(content)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if evicted:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if cached_pages(descriptor, 0, len(content)) is not None:
            monkeypatch.setattr(OpenFile, "read_cached", lambda *_: pytest.fail("the device is asked twice"))
        assert list(differing_at_once(descriptor, pieces)) == [pieces[3]]
    finally:
        os.close(descriptor)


def test_the_digest_of_a_file_depends_on_the_order_of_its_pieces() -> None:
    first, second = Piece(1, blake3(b"1").hexdigest()), Piece(1, blake3(b"2").hexdigest(), "weight")

    assert digest_of_pieces([first, second]) == blake3(bytes.fromhex(first.digest + second.digest)).hexdigest()
    assert digest_of_pieces([first, second]) != digest_of_pieces([second, first])


def test_only_the_pieces_that_differ_are_named(tmp_path: Path) -> None:
    content = b"header" + b"a" * 1000 + b"b" * 2000
    parts = {"": content[:6], "a": content[6:1006], "b": content[1006:]}
    pieces = [Piece(len(part), blake3(part).hexdigest(), name) for name, part in parts.items()]

    def found(content: bytes) -> list[str]:
        (tmp_path / "file").write_bytes(b"before" + content)
        descriptor = os.open(tmp_path / "file", os.O_RDONLY)
        try:
            return [piece.tensor for piece in differing(descriptor, 6, pieces)]
        finally:
            os.close(descriptor)

    assert found(content) == []
    assert found(b"H" + content[1:]) == [""]
    assert found(content[:1005] + b"?" + content[1006:]) == ["a"]
    assert found(content[:-1]) == ["b"]


@pytest.mark.parametrize("tensor", ["", "a", "model.norm.weight", "a b  c ", " ", "نموذج\n"])
def test_a_piece_is_read_as_it_was_written(tensor: str) -> None:
    piece = Piece(5, "0f" * 32, tensor)

    assert Piece.parsed(str(piece)) == piece


@pytest.mark.parametrize("text", ["", "5", "-1 " + "0f" * 32, "x " + "0f" * 32, "5 0f", "5 " + "0g" * 32, "9" * 5000])
def test_what_is_no_piece_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Piece.parsed(text)
