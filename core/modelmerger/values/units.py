"""The merge as units of work, for whoever executes them."""

from collections.abc import Sequence
from typing import Literal, Protocol

from attrs import frozen


@frozen
class Unit:
    """Some consecutive blocks of an output file to be written, or of a tensor to be measured."""

    kind: Literal["write", "measure"]
    """What is done with the blocks."""
    of: int
    """The index of the file, or of the tensor, in the plan."""
    first: int
    """The number of the first block."""
    last: int
    """The number of the block behind the last one."""


class SliceWork(Protocol):
    """What `run_slices` executes. A unit waits only for units before it, so starting them in order cannot deadlock."""

    @property
    def units(self) -> Sequence[Unit]:
        """All that is to be done, in an order in which it can be."""

    @property
    def workers(self) -> int:
        """How many units to run at a time."""

    def run(self, unit: Unit) -> None:
        """Does one unit. Thread-safe. Raises what went wrong, or returns early once `cancel` was called."""

    def cancel(self) -> None:
        """Makes running units return soon, at their next slice."""
