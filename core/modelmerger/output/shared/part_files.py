"""The folder of a staging directory in which each share of a merge says who makes it, and which blocks are done."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import frozen

from modelmerger.output.entries import open_directory
from modelmerger.output.journal import Journal, read_journal
from modelmerger.output.shared.owner import check_free
from modelmerger.values.work.block_record import BlockRecord

if TYPE_CHECKING:
    from modelmerger.values.work.part import Part

PARTS = "parts"
"""What the folder is called."""
_OWNER = r"[0-9]+-of-[0-9]+\.owner"
_JOURNAL = r"[0-9]+-of-[0-9]+"
Records = dict[tuple[int, int], BlockRecord]
"""What is known of the blocks that are done, by file and block."""


def journal_of(part: "Part") -> str:
    """What the journal of a share is called."""
    return f"{part.number}-of-{part.of}"


def owner_of(part: "Part") -> str:
    """What the file is called that says who makes a share."""
    return f"{journal_of(part)}.owner"


@contextmanager
def parts_in(directory: int) -> Iterator[int | None]:
    """A descriptor of the folder, for as long as the context lasts; None where there is none."""
    try:
        descriptor = open_directory(PARTS, directory)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _named(pattern: str, parts: int) -> list[str]:
    """What lies in the open folder under such names, sorted."""
    return sorted(name for name in os.listdir(parts) if re.fullmatch(pattern, name))


def check_no_parts(directory: int, token: str, path: str) -> None:
    """Raises `OwnedError` where a share is being made at this moment. token, path: as in `check_free`."""
    with parts_in(directory) as parts:
        if parts is None:
            return
        for name in _named(_OWNER, parts):
            check_free(parts, name, token, path)


@frozen(eq=False, repr=False)
class PartJournals:
    """What the shares of a plan have said of what they did."""

    journals: Sequence[Journal] = ()
    """One a share."""

    @classmethod
    def of(cls, directory: int) -> "PartJournals":
        """Those in an open staging directory, of whatever plan."""
        with parts_in(directory) as parts:
            names = _named(_JOURNAL, parts) if parts is not None else []
            found = [read_journal(parts, name) for name in names if parts is not None]
        return cls([journal for journal in found if journal is not None and journal.plan])

    def of_plan(self, plan: str) -> "PartJournals":
        """Those of one plan."""
        return PartJournals([journal for journal in self.journals if journal.plan == plan])

    @property
    def records(self) -> Records:
        """Of all blocks."""
        return {key: record for journal in self.journals for key, record in journal.records.items()}

    def sure(self, inodes: Mapping[int, int]) -> Records:
        """Of the blocks that need not be read again: the share that wrote them ended well, in these files.

        inodes: of the files as they are, by their number.
        """
        return {
            key: record
            for journal in self.journals
            for key, record in journal.records.items()
            if key in journal.sure and journal.ended and journal.ended.get(key[0]) == inodes.get(key[0], -1)
        }
