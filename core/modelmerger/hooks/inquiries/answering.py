"""What answers an inquiry: the function that it names, in this process or another one."""

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from modelmerger.values.errors import Problem
from modelmerger.values.work.figures import Figures

KINDS = {kind.__name__: kind for kind in (Problem, Figures)}
"""What can be found."""


def answer(function: str, argument: Mapping[str, Any]) -> list[Problem | Figures]:
    """What the function finds. function: `module:function`."""
    module, _, name = function.partition(":")
    return list(getattr(importlib.import_module(module), name)(argument))


def as_plain_data(asked: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What `answer` finds, as plain JSON: the kind of each, and what it holds. asked: what it is given, by name."""
    return [(type(found).__name__, attrs.asdict(found)) for found in answer(**asked)]


def from_plain_data(told: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Problem | Figures]:
    """What was found, of what `as_plain_data` gives."""
    return [KINDS[kind](**held) for kind, held in told]
