"""A merge as plain data: units of work, what is needed for each, what comes of it, and an order that describes it all.

Everything here can be pickled, and a `WorkOrder` goes to JSON and back, so that a unit can be done in any thread,
process or machine that has the same inputs and plugins.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, Self

import attrs
from attrs import field, frozen

from modelmerger.values.work.block_record import BlockRecord


@frozen(cache_hash=True)  # a schedule looks for it in sets and mappings all the time
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
    needs: tuple[int, ...] = ()
    """The tensors, by their index in the plan, whose measurement must be there before the unit can be done."""
    round: int = 0
    """Of a measurement: how many rounds must be over before it."""


@frozen
class Statistic:
    """What a strategy measured in some blocks of a tensor, or in all of it."""

    dtype: Literal["F64", "I64"]
    """Of its numbers."""
    shape: tuple[int, ...]
    """One number a dimension, () for a scalar."""
    content: bytes = field(repr=False)
    """Its numbers, little endian, the last dimension contiguous."""


@frozen
class Task:
    """A unit that can be done now."""

    unit: Unit
    """What is to be done."""
    totals: Mapping[int, Sequence[Statistic]]
    """Of each tensor that the unit needs: the statistic of the whole tensor, one a round."""
    token: str
    """Of the run that it belongs to."""


@frozen
class Done:
    """What came of a task."""

    unit: Unit
    """What was done."""
    token: str
    """Of the run that it belongs to."""
    moved: int
    """Bytes that were read and written."""
    records: Mapping[int, BlockRecord] = field(factory=dict)
    """Of the blocks that were written, by number."""
    statistic: Statistic | None = None
    """What was measured in the unit's blocks; None where the strategy had nothing to measure."""
    worker: str = ""
    """Which process did it, in words; empty for the one that the merge runs in."""


@frozen
class WorkOrder:
    """Everything that a worker needs to know of a merge to do its tasks."""

    config: Mapping[str, Any]
    """As `MergeConfig` takes it."""
    located: Sequence[tuple[str, str, str]]
    """Where models were found: what the config says, the directory, and the revision."""
    plan: str
    """The digest of the plan that the worker must come to."""
    decides: Mapping[str, str]
    """Digests of the parts that the plan's digest is made of, so that a worker can say what differs.

    One is of a few products and sums: floats may come out otherwise on another machine.
    """
    tree: str
    """The directory in which the files of weights lie while the merge runs."""
    token: str
    """Of this run: no worker of another one writes into its tree, and nothing from one is taken."""
    inputs: Sequence[tuple[str, int, int, int]] = ()
    """Every file that is read: its path, size, inode, and when it was last changed, in nanoseconds since 1970."""
    plugins: Sequence[tuple[str, str, str]] = ()
    """Every plugin that takes part: kind and name, its distribution, and the version of that."""
    torch: str = ""
    """The version of torch."""

    def to_json(self) -> str:
        """As text. Raises `TypeError` for a config that is not plain data."""
        return json.dumps(attrs.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` was called on."""
        told = json.loads(text)
        return cls(**told | {key: list(map(tuple, told[key])) for key in ("located", "inputs", "plugins")})


class Worker(Protocol):
    """What does tasks, one at a time: each thread or process has its own."""

    def do(self, task: Task, then: Task | None = None) -> Done:
        """Does a task. Any worker of the merge comes to the same bytes, however often it is done. Raises `MergeError`.

        then: the task that it will do next, if that is known. Its inputs are read meanwhile, and nothing more comes of
        it. Raises `CancelledError` where the run was cancelled meanwhile.
        """

    def close(self) -> None:
        """Frees what the worker holds."""


class SliceWork(Protocol):
    """What `run_slices` executes. Its methods may be called from any thread."""

    @property
    def workers(self) -> int:
        """How many tasks to do at a time."""

    def take(self, wait: float | None = None, expected: Task | None = None) -> Task | None:
        """A task that nobody has taken yet and that can be done now, in order; the only method that waits.

        wait: seconds to wait for one that cannot be done yet; None: as long as it takes. expected: what `expect` said,
        which is preferred. None is returned where all tasks were taken or the run is cancelled, and where there was
        none in time.
        """

    def expect(self) -> Task | None:
        """The task that whoever asks will get from `take` next: others get it only where nothing else is left.

        None where no task can be done now that nobody expects.
        """

    def done(self, done: Done) -> None:
        """Takes what came of a task: in any order, and any number of times."""

    def failed(self, error: BaseException) -> None:
        """Ends the merge with an error, the first one if there are more."""

    def cancel(self) -> None:
        """Hands out no more tasks, and makes local workers stop at their next slice."""

    def local(self) -> Worker:
        """A new worker in this process, which shares the open models."""

    def order(self) -> WorkOrder:
        """For workers elsewhere. Raises `MergeError` where models or plugins are in this process alone."""
