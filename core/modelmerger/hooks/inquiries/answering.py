"""What a process does that answers an inquiry: it keeps to limits, calls the function, and writes what that found."""

import gc
import importlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import attrs

from modelmerger.values.errors import Problem

SECONDS = 120
"""How long an answer may take, on the clock and of the processor."""
MEMORY = 8 << 30
"""Bytes that the process may hold."""


def answer(function: str, argument: Mapping[str, Any]) -> list[Problem]:
    """What the function finds. function: `module:function`."""
    module, _, name = function.partition(":")
    return list(getattr(importlib.import_module(module), name)(argument))


def main() -> None:
    """Answers the inquiry that standard input holds, on standard output, as JSON."""
    keep_to_limits()
    gc.disable()  # it would spend a fifth of a second on what torch makes as it is imported
    asked = json.load(sys.stdin)
    answered = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints
    problems = answer(asked["function"], asked["argument"])
    json.dump([attrs.asdict(problem) for problem in problems], answered)
    answered.close()
    os._exit(0)  # what was imported need not be taken apart


def keep_to_limits() -> None:
    """The system ends this process when it takes too long, even when nobody waits for it, or holds too much."""
    import resource

    signal.alarm(SECONDS)
    for kind, most in ((resource.RLIMIT_CPU, SECONDS), (resource.RLIMIT_DATA, MEMORY)):
        hard = resource.getrlimit(kind)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, hard))
