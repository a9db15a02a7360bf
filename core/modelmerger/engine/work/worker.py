"""Does tasks in this process: measures or writes what a unit says, on the CPU if the device runs out of memory."""

import contextlib
import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from modelmerger.engine.arithmetic import Workspace
from modelmerger.engine.blocks import BlockWriter
from modelmerger.engine.cancelling import CancelledError
from modelmerger.engine.merge import CPU
from modelmerger.engine.statistics import AsTensors, as_statistic
from modelmerger.values.errors import MergeError
from modelmerger.values.text import said_by
from modelmerger.values.work.units import Done, Task, Unit

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("modelmerger")


class DeviceInUse:
    """The device of a merge, which all of its workers leave together."""

    def __init__(self, device: torch.device) -> None:
        self.current = device
        """Where slices are merged."""
        self._leaving = threading.Lock()

    def leave(self) -> None:
        """Slices are merged on the CPU from now on; says so, once."""
        with self._leaving:
            if self.current != CPU:
                log.warning("%s is out of memory; the merge goes on on the CPU.", self.current)
                self.current = CPU
        torch.cuda.empty_cache()


class MergeWorker:
    """A worker, as `Worker` describes it, of a merge that is open in this process. For one thread."""

    def __init__(self, blocks: BlockWriter, device: DeviceInUse) -> None:
        self._blocks = blocks
        self._device = device
        self._workspace: Workspace | None = None
        self._said: Unit | None = None  # whose inputs it was said of that they will be read

    def do(self, task: Task, then: Task | None = None) -> Done:
        """Measures or writes what the task says, and has the inputs of the next one read meanwhile."""
        torch.set_num_threads(1)  # of this thread: decompositions do not know what another one has set
        try:
            self._read_ahead(task, then)
            try:
                return self._do(task)
            except torch.OutOfMemoryError as error:
                if self._workspace is None or self._workspace.device == CPU:
                    raise self._blocks.merger.merge.hooks.strategy.out_of_memory_error(error) from error
                self._device.leave()
                return self._do(task)
        except (MergeError, MemoryError, CancelledError):
            raise
        except (Exception, SystemExit) as error:
            reason = (
                f"a bug in modelmerger: {type(error).__name__}: {said_by(error)}. Run it with --debug and report it."
            )
            raise MergeError(reason) from error

    def close(self) -> None:
        """Frees the memory of the worker."""
        self._workspace = None

    def _read_ahead(self, task: Task, then: Task | None) -> None:
        """Says what will be read of a task, if it was not said when this was the next one, and behind it, of the next
        one.
        """
        if task.unit != self._said:
            self._say(task)
        self._said = None
        if then is not None:
            with contextlib.suppress(Exception):  # the error is of the next task, which meets it when its turn comes
                self._say(then)
                self._said = then.unit

    def _say(self, task: Task) -> None:
        unit = task.unit
        if unit.kind == "measure":
            self._blocks.merger.measurer.read_ahead(unit, _earlier(task))
        else:
            self._blocks.read_ahead(unit)

    def _do(self, task: Task) -> Done:
        workspace = self._workspace
        if workspace is None or workspace.device != self._device.current:
            workspace = self._workspace = Workspace(self._device.current)
        unit = task.unit
        if unit.kind == "measure":
            found = self._blocks.merger.measurer.measure(unit, _earlier(task), workspace, self._blocks.cancelled)
            statistic = None if found is None else as_statistic(found)
            return Done(unit, task.token, workspace.take_bytes_read(), statistic=statistic)
        records = self._blocks.write(unit, AsTensors(task.totals), workspace)
        written = sum(piece.length for record in records.values() for piece in record.pieces)
        return Done(unit, task.token, workspace.take_bytes_read() + written, records)


def _earlier(task: Task) -> "Sequence[Tensor]":
    """The totals of the rounds before that of a measuring task."""
    return AsTensors(task.totals).get(task.unit.of, ())[: task.unit.round]
