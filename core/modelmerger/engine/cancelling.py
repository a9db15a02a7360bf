"""How workers hear that the run is over."""

from collections.abc import Callable

Cancelled = Callable[[], bool]
"""Whether the run was cancelled; asked before every slice."""


class CancelledError(Exception):
    """The run was cancelled while a worker did a task."""


def never() -> bool:
    """A run that nobody cancels."""
    return False
