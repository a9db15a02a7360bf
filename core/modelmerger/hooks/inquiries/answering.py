"""What answers an inquiry: the function that it names, in this process or another one."""

import importlib
from collections.abc import Mapping
from typing import Any

import attrs

from modelmerger.values.errors import Problem


def answer(function: str, argument: Mapping[str, Any]) -> list[Problem]:
    """What the function finds. function: `module:function`."""
    module, _, name = function.partition(":")
    return list(getattr(importlib.import_module(module), name)(argument))


def as_plain_data(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What `answer` finds, as plain JSON. asked: what it is given, by name."""
    return [attrs.asdict(problem) for problem in answer(**asked)]
