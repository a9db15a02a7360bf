"""Makes any elements of a planned merge when they are asked for, in the thread that asks."""

import logging
import threading

import torch

from modelmerger.engine.arithmetic import Workspace
from modelmerger.engine.compiling import compile_function
from modelmerger.engine.measuring import Measurements, measured_blocks
from modelmerger.engine.merge import CPU, Merge
from modelmerger.engine.tensors import SliceMerger, UnitState
from modelmerger.planning.slices import slices
from modelmerger.values.units import Unit

log = logging.getLogger("modelmerger")


class OnDemand:
    """Makes elements of tensors. Safe from several threads, each with memory of its own."""

    def __init__(self, merge: Merge) -> None:
        self._plan, self._strategy = merge.plan, merge.hooks.strategy
        self._device = merge.device
        self._measuring = _MeasuringOnDemand(merge)
        self._merger = SliceMerger(merge, self._measuring.measurements)
        self._local = threading.local()
        self._leaving = threading.Lock()
        if merge.settings.options.torch_compile:
            merge.hooks.strategy.compile_merge(compile_function)

    def read(self, number: int, start: int, stop: int, buffer: memoryview) -> None:
        """Fills `buffer` with elements `start` to `stop` of a tensor of the plan, in the dtype of the plan.

        On the CPU if the device runs out of memory. Raises `MergeError`.
        """
        try:
            self._fill(number, start, stop, buffer)
        except torch.OutOfMemoryError as error:
            self._leave_device(error)
            self._fill(number, start, stop, buffer)

    def _fill(self, number: int, start: int, stop: int, buffer: memoryview) -> None:
        workspace: Workspace | None = getattr(self._local, "workspace", None)
        if workspace is None or workspace.device != self._device:
            workspace, state = self._local.workspace, self._local.state = Workspace(self._device), UnitState()
        else:
            state = self._local.state
        self._measuring.measure(number, workspace)
        tensor = self._merger.tensor(number, state)
        bits, out = tensor.bits, torch.frombuffer(buffer, dtype=torch.uint8)
        for part in slices(tensor.plan, start, stop, self._plan.slice_elements):
            target = out[(part.start - start) * bits // 8 : (part.stop - start) * bits // 8]
            tensor.write_slice(part, target, workspace, state)
        state.take()  # counts would depend on how often a slice is read

    def _leave_device(self, error: torch.OutOfMemoryError) -> None:
        """Makes slices on the CPU from now on."""
        workspace: Workspace | None = getattr(self._local, "workspace", None)
        if workspace is None or workspace.device == CPU:
            raise self._strategy.out_of_memory_error(error) from error
        del self._local.workspace
        with self._leaving:
            if self._device != CPU:
                log.warning("%s is out of memory; the merge goes on on the CPU.", self._device)
                self._device = CPU
        torch.cuda.empty_cache()


class _MeasuringOnDemand:
    """Measures a tensor when it is first asked for, by whoever asks first, over the blocks and in the order of a merge
    that is written. The others wait.
    """

    def __init__(self, merge: Merge) -> None:
        self.measurements = Measurements(merge, threading.Event())
        self._plan = merge.plan
        self._locks = [
            threading.Lock() if self.measurements.measures(i) else None for i in range(len(merge.plan.tensors))
        ]
        self._measured: set[int] = set()

    def measure(self, number: int, workspace: Workspace) -> None:
        """Measures a tensor of the plan, unless it is measured already, or need not be."""
        lock = self._locks[number]
        if lock is None or number in self._measured:
            return
        with lock:
            if number not in self._measured:
                blocks = measured_blocks(self._plan.tensors[number])
                self.measurements.measure(Unit("measure", number, 0, blocks), workspace)
                self._measured.add(number)
