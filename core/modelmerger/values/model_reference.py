"""A model as the config names it, and where that name leads on this disk."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from modelmerger.values.errors import Problem


def user_path(text: str | os.PathLike[str]) -> Path:
    """A path as the user wrote it, with the home directory in place of `~`."""
    return Path(os.path.expanduser(text))


@frozen
class ModelReference:
    """A model as the config names it."""

    path: str
    """A path, or what a plugin can find; for a model in memory but a text about it."""
    name: str
    """Unique among the models of a merge."""
    where: str
    """Where the config names it (`models[0].path`), for messages."""
    source: Any = field(default=None, repr=False)
    """The module or the mapping of tensors that is the model; None for one that lies at `path`."""
    given: str = ""
    """What the user wrote, once `path` says where that lies."""

    @property
    def local(self) -> Path:
        """The path on this disk, with the user's home in place of `~`."""
        return user_path(self.path)


@frozen
class Location:
    """Where a model that the config names lies on this disk."""

    directory: Path = field(converter=Path)
    """Its directory, or its one file, with the user's home in place of `~`."""
    revision: str = ""
    """What the name stands for today, in a form that cannot change (a commit), for names that can come to stand for
    something else; else empty."""
    notes: Sequence[Problem] = ()
    """What the user should know of it."""
