"""A model as the config names it, and where that name leads on this disk."""

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from modelmerger.values.errors import Problem


@frozen
class ModelReference:
    """A model as the config names it."""

    path: str
    """A path, or what a plugin can find; for a model in memory but a text about it."""
    name: str
    """Unique among the models of a merge."""
    where: str
    """Where the config names it (`models[0].path`), for messages."""
    source: Any = None
    """The module or the mapping of tensors that is the model; None for one that lies at `path`."""


@frozen
class Location:
    """Where a model that the config names lies on this disk."""

    path: str
    """A directory or a file."""
    revision: str = ""
    """What the name stands for today, in a form that cannot change (a commit), for names that can come to stand for something
    else; else empty."""
    notes: Sequence[Problem] = ()
    """What the user should know of it."""
