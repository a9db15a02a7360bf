"""One share of a merge that several processes make, who talk to nobody."""

import re
from typing import Self

from attrs import frozen

from modelmerger.values.errors import ConfigError


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
