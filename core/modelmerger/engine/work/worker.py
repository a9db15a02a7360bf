"""Does tasks in this process: measures or writes what a unit says, on the CPU if the device runs out of memory."""

import logging
import threading

import torch

from modelmerger.engine.arithmetic import Workspace
from modelmerger.engine.blocks import BlockWriter
from modelmerger.engine.cancelling import CancelledError
from modelmerger.engine.merge import CPU
from modelmerger.engine.statistics import AsTensors, as_statistic
from modelmerger.values.errors import MergeError
from modelmerger.values.text import said_by
from modelmerger.values.work.units import Done, Task

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

    def do(self, task: Task) -> Done:
        """Measures or writes what the task says."""
        try:
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

    def _do(self, task: Task) -> Done:
        workspace = self._workspace
        if workspace is None or workspace.device != self._device.current:
            workspace = self._workspace = Workspace(self._device.current)
        unit = task.unit
        totals = AsTensors(task.totals)
        if unit.kind == "measure":
            earlier = totals.get(unit.of, ())[: unit.round]
            found = self._blocks.merger.measurer.measure(unit, earlier, workspace, self._blocks.cancelled)
            statistic = None if found is None else as_statistic(found)
            return Done(unit, task.token, workspace.take_bytes_read(), statistic=statistic)
        records = self._blocks.write(unit, totals, workspace)
        written = sum(piece.length for record in records.values() for piece in record.pieces)
        return Done(unit, task.token, workspace.take_bytes_read() + written, records)
