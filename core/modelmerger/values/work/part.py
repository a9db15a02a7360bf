"""One share of a merge that several processes make, who talk to nobody, and what came of it."""

import re
from collections.abc import Sequence
from typing import Any, Self

from attrs import asdict, frozen

from modelmerger.values.errors import ConfigError, Problem
from modelmerger.values.text import amount, shown, size


@frozen
class Part:
    """The share with this number of so many, which are counted from 0."""

    number: int
    """From 0 to one less than `of`."""
    of: int
    """How many shares the merge has."""

    @classmethod
    def parsed(cls, text: str) -> Self:
        """`3/16`, the fourth of sixteen shares. Raises `ConfigError`."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if found is None:
            raise ConfigError(f"a part is a number and how many there are, as in 3/16, and not '{text}'.")
        part = cls(int(found[1]), int(found[2]))
        if part.of == 0:
            raise ConfigError(f"there is no part {part}: a merge has one part at least, as in 0/1.")
        if part.number >= part.of:
            last = cls(part.of - 1, part.of)
            raise ConfigError(f"there is no part {part}: parts are counted from 0, so the last of {part.of} is {last}.")
        return part

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@frozen(kw_only=True)
class PartReport:
    """What one share of a merge made. Nothing is published yet."""

    part: str
    """Its number and how many there are: `3/16`."""
    output: str
    """The directory that will be published, which is not there yet."""
    strategy: str
    """Its name."""
    models: Sequence[str]
    """The names of the models of the config, in their order."""
    bytes_written: int
    """All that the share has of the files of weights."""
    bytes_of_all: int
    """All files of weights, those of other shares among them."""
    bytes_reused: int
    """Those of its own bytes that were there already."""
    seconds: float
    """By the clock."""
    plan: str
    """The digest of the plan."""
    notes: Sequence[Problem]
    """Warnings and notes, as they came up."""

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, for `--json`."""
        notes = [{"severity": note.severity, "message": str(note)} for note in self.notes]
        return asdict(self, recurse=False) | {"models": list(self.models), "notes": notes}

    def __str__(self) -> str:
        reused = f", {size(self.bytes_reused)} of it made before" if self.bytes_reused else ""
        return (
            f"made part {self.part} of a merge of {amount(len(self.models), 'model')} ({shown(self.strategy)}): "
            f"{size(self.bytes_written)} of {size(self.bytes_of_all)}{reused} in {self.seconds:.1f} s. "
            f"Once all parts are made, run the same without --part to publish {shown(self.output)}"
        )
