"""What happens to an output after it was published is found by `modelmerger verify`, and by name."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import directory_state
from modelmerger import MergeConfig, merge, read_header, verify
from safetensors import safe_open

from tests.faults.conftest import MANY

Refused = Callable[..., str]


@pytest.fixture
def published(sharded: SimpleNamespace) -> Path:
    merge(MergeConfig(**sharded.config(MANY)))
    return Path(sharded.output)


def flip(path: Path, offset: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


def test_a_flipped_bit_is_named_by_shard_and_tensor(published: Path, refused: Refused) -> None:
    """C14: for every tensor of every shard, at its first byte and at its last."""
    shards = sorted(published.glob("*.safetensors"))
    assert max(len(list(safe_open(shard, "pt").keys())) for shard in shards) > 1
    for shard in shards:
        with shard.open("rb") as file:
            entries = read_header(file.fileno(), shard.stat().st_size).entries
        for name, entry in entries.items():
            for offset, bit in ((entry.begin, 0), (entry.end - 1, 7)):
                flip(shard, offset, bit)
                (line,) = refused(3, "verify", published).splitlines()
                assert (
                    line
                    == f"error: {shard}: {name}: differs from what was published. Merge again, or restore the file from a copy."
                )
                flip(shard, offset, bit)
    verify(published)


def test_a_flipped_bit_in_a_header_is_named_by_shard(published: Path, refused: Refused) -> None:
    """C14: where the header can still be read, and where it cannot."""
    shard = min(published.glob("*.safetensors"))
    for offset in (0, 9, shard.read_bytes().index(b"model.") + 3):
        flip(shard, offset, 1)
        (line,) = refused(3, "verify", published).splitlines()
        assert line.startswith(f"error: {shard}: ")
        assert "header" in line
        flip(shard, offset, 1)


def truncated(path: Path) -> str:
    shard = min(path.glob("*.safetensors"))
    os.truncate(shard, 100)
    return f"{shard}: is 100 bytes long and was "


def grown(path: Path) -> str:
    shard = min(path.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes() + b"\0")
    return f"{shard}: is "


def missing_shard(path: Path) -> str:
    shard = min(path.glob("*.safetensors"))
    shard.unlink()
    return f"{shard}: cannot be opened: No such file or directory"


def missing_document(path: Path) -> str:
    (path / "licenses" / "a" / "LICENSE").unlink()
    return f"{path}/licenses/a/LICENSE: cannot be opened: No such file or directory"


def tampered_config(path: Path) -> str:
    flip(path / "config.json", 5)
    return f"{path}/config.json: differs from what was published"


def extra_file(path: Path) -> str:
    (path / "modeling_evil.py").write_text("print()")
    return f"{path}/modeling_evil.py: is not part of the merge"


def extra_file_below(path: Path) -> str:
    (path / "licenses" / "more").mkdir()
    (path / "licenses" / "more" / "x").touch()
    return f"{path}/licenses/more/x: is not part of the merge"


def extra_link(path: Path) -> str:
    (path / "link").symlink_to("/")
    return f"{path}/link: is not part of the merge"


def link_in_place_of_a_file(path: Path) -> str:
    (path / "config.json").rename(path.parent / "config.json")
    (path / "config.json").symlink_to(path.parent / "config.json")
    return f"{path}/config.json: cannot be opened"


def link_in_place_of_a_folder(path: Path) -> str:
    (path / "licenses").rename(path.parent / "licenses")
    (path / "licenses").symlink_to(path.parent / "licenses")
    return f"{path}/licenses/a/LICENSE: is behind a symbolic link"


def fifo_in_place_of_a_file(path: Path) -> str:
    (path / "config.json").unlink()
    os.mkfifo(path / "config.json")
    return f"{path}/config.json: is not a regular file"


DAMAGE = [
    truncated,
    grown,
    missing_shard,
    missing_document,
    tampered_config,
    extra_file,
    extra_file_below,
    extra_link,
    link_in_place_of_a_file,
    link_in_place_of_a_folder,
    fifo_in_place_of_a_file,
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_is_no_longer_as_published_is_named(
    published: Path, refused: Refused, damage: Callable[[Path], str]
) -> None:
    """C14"""
    expected = damage(published)

    assert f"error: {expected}" in refused(3, "verify", published)


def test_companions_may_be_written_again(published: Path, command: Callable[..., SimpleNamespace]) -> None:
    """C14: the model card, and what a validation writes."""
    (published / "README.md").write_text("# Better\n")
    (published / "validation.json").write_text("{}")
    found = command("verify", published)

    assert (found.status, found.err) == (0, "")
    files = len(directory_state(published) or {}) - 3
    assert found.out.startswith(f"{published}: {files} files, ")
