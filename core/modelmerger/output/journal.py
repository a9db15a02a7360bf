"""The journal of a staging directory: a header with the plan's digest, then a line for each finished block.

A block's line is believed only if the block still has the digests it names, so lines need no fsync of their own; but a
share of a merge that ended well says so in a line behind those of its blocks, which are then on the disk. What is torn
or damaged is passed over. Before the staged tree gets the output's name, a line says which tree (inode) that
is, so that a later run can tell a merge that was stopped before that moment from one that was stopped after it.
"""

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from attrs import field, frozen

from modelmerger.inputs.strict_json import read_json
from modelmerger.output.entries import write_all
from modelmerger.values.errors import InputError
from modelmerger.values.work.block_record import BlockRecord, Piece

NAME = "journal"
"""What the journal is called in its directory."""
_HEADER = b'{"modelmerger": 1, "plan": "'


@frozen
class Journal:
    """What a journal says."""

    plan: str = ""
    """The digest of the plan; empty where not even the header is whole."""
    records: Mapping[tuple[int, int], BlockRecord] = field(factory=dict)
    """Of the blocks that were finished, by file and block."""
    tree: int | None = None
    """The inode of the tree that was about to be published; None before that moment."""
    ended: Mapping[int, int] | None = None
    """The inode of each file that a share wrote to, by its number, where the share ended well; else None."""
    sure: AbstractSet[tuple[int, int]] = frozenset()
    """Those of the blocks that were on the disk when the share ended well."""
    reread: bool = False
    """Whether a run wanted the blocks of shares to be read again: what they say is not believed unread any more."""
    decides: Mapping[str, str] = field(factory=dict)
    """What the plan's digest is made of, in the journal of a share."""


def header(plan: str, decides: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The line that a journal begins with."""
    return {"modelmerger": 1, "plan": plan} | ({"decides": dict(decides)} if decides else {})


def block_line(file: int, block: int, record: BlockRecord) -> dict[str, Any]:
    """The line about a finished block of a file of the layout."""
    line = {"file": file, "block": block, "pieces": list(map(str, record.pieces))}
    more = {"counts": record.counts, "observed": record.observed}
    return line | {key: value for key, value in more.items() if value}


def tree_line(inode: int) -> dict[str, Any]:
    """The line that says which tree is about to be published."""
    return {"tree": inode}


def ended_line(inodes: Mapping[int, int]) -> dict[str, Any]:
    """The line that says that a share ended well. inodes: of the files that it wrote to, by their number."""
    return {"ended": {str(file): inode for file, inode in inodes.items()}}


def reread_line() -> dict[str, Any]:
    """The line that says that what shares made is read again."""
    return {"reread": True}


def append(descriptor: int, line: Mapping[str, Any]) -> None:
    """Writes a line to a journal that is open for appending."""
    write_all(descriptor, json.dumps(line).encode() + b"\n")


def read_journal(directory: int, name: str = NAME) -> Journal | None:
    """A journal in an open directory. None where there is none, or where a file of that name is none of ours."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            first, *lines = file.read().split(b"\n")
    finally:
        os.close(descriptor)
    if not lines:
        return Journal() if _HEADER.startswith(first) or first.startswith(_HEADER) else None
    start = _parsed(first)
    if start.get("modelmerger") != 1 or not isinstance(start.get("plan"), str):
        return None
    records: dict[tuple[int, int], BlockRecord] = {}
    tree = ended = None
    reread = False
    sure: AbstractSet[tuple[int, int]] = frozenset()
    for line in map(_parsed, lines):
        if _is_block(line):
            with contextlib.suppress(ValueError):
                pieces = tuple(map(Piece.parsed, line["pieces"]))
                record = BlockRecord(pieces, line.get("counts", {}), line.get("observed", {}))
                records[line["file"], line["block"]] = record
        elif isinstance(line.get("tree"), int):
            tree = line["tree"]
        elif _is_mapping_to(int, line.get("ended")) and all(map(str.isdecimal, line["ended"])):
            ended, sure = {int(file): inode for file, inode in line["ended"].items()}, frozenset(records)
        elif line.get("reread") is True:
            reread = True
    decides = start["decides"] if _is_mapping_to(str, start.get("decides")) else {}
    return Journal(start["plan"], records, tree, ended, sure, reread, decides)


def _parsed(line: bytes) -> dict[str, Any]:
    """The mapping in a line; empty for a line that holds none."""
    try:
        value = read_json(line, NAME)
    except InputError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_block(line: Mapping[str, Any]) -> bool:
    counts, observed = line.get("counts", {}), line.get("observed", {})
    return (
        isinstance(line.get("file"), int)
        and isinstance(line.get("block"), int)
        and isinstance(line.get("pieces"), list)
        and all(isinstance(piece, str) for piece in line["pieces"])
        and _is_mapping_to(int, counts)
        and is_sums(observed)
    )


def is_sums(observed: Any) -> bool:
    """Whether this is tensor → statistic → number, as plain data."""
    return _is_mapping_to(dict, observed) and all(_is_mapping_to((int, float), found) for found in observed.values())


def _is_mapping_to(kind: type | tuple[type, ...], value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, kind) for item in value.values())
