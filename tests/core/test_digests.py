import os
from pathlib import Path

import pytest
from blake3 import blake3
from modelmerger.digests import (
    block_count,
    block_digest,
    blocks_of_bytes,
    blocks_of_file,
    digest_of_blocks,
    range_digest,
)
from modelmerger.layout import BLOCK


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 1), (BLOCK, 1), (BLOCK + 1, 2), (3 * BLOCK, 3)])
def test_blocks_are_counted_up(size: int, count: int) -> None:
    assert block_count(size) == count


@pytest.mark.parametrize("size", [0, 1, BLOCK, BLOCK + 5])
def test_a_file_has_the_digests_of_its_bytes(tmp_path: Path, size: int) -> None:
    content = os.urandom(1000) * (size // 1000 + 1)
    content = content[:size]
    (tmp_path / "file").write_bytes(content)

    expected = [blake3(content[i : i + BLOCK]).hexdigest() for i in range(0, size, BLOCK)]
    assert blocks_of_bytes(content) == expected
    assert blocks_of_file(tmp_path / "file") == (size, expected)


def test_a_range_is_read_by_position_and_ends_with_the_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 12_000  # more than one piece
    (tmp_path / "file").write_bytes(content)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert range_digest(descriptor, 5, 2_000_005) == blake3(content[5:2_000_005]).hexdigest()
        assert range_digest(descriptor, 3_000_000, 9_999_999) == blake3(content[3_000_000:]).hexdigest()
        assert block_digest(descriptor, 0) == blake3(content).hexdigest()
        assert block_digest(descriptor, 1) == blake3(b"").hexdigest()
    finally:
        os.close(descriptor)


def test_the_digest_of_a_file_depends_on_the_order_of_its_blocks() -> None:
    first, second = blake3(b"1").hexdigest(), blake3(b"2").hexdigest()

    assert digest_of_blocks([first, second]) == blake3(bytes.fromhex(first + second)).hexdigest()
    assert digest_of_blocks([first, second]) != digest_of_blocks([second, first])
