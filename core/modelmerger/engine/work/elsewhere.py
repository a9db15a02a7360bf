"""What a merge has for workers of other processes and machines: their order, and how what they write is looked at."""

from collections.abc import Callable

from attrs import frozen

from modelmerger.values.errors import OutputError, Problem
from modelmerger.values.work.block_record import BlockRecord
from modelmerger.values.work.units import WorkOrder


@frozen(eq=False, repr=False)
class Elsewhere:
    """The part of a merge that workers elsewhere need."""

    order: Callable[[], WorkOrder]
    """Makes what they need to know."""
    token: str
    """Of the run."""
    holds: Callable[[int, int, BlockRecord], bool]
    """Whether a block of a file, as this process reads it, is as its record says."""
    tree: str
    """Where the files are, for messages."""

    def unwritten_error(self, worker: str) -> OutputError:
        """The error for a worker of which a block that was read back is not what it says to have written."""
        message = (
            f"does not hold what {worker} says to have written there: its storage is another one, or is not seen here "
            "in time. Give an output path on storage that all machines share."
        )
        return OutputError(Problem(message, self.tree))
