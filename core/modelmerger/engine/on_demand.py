"""Makes any elements of a planned merge when they are asked for, in the thread that asks."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from modelmerger.engine.arithmetic import Workspace
from modelmerger.engine.cancelling import never
from modelmerger.engine.measuring import Measurer
from modelmerger.engine.merge import CPU, Merge
from modelmerger.engine.tensors import SliceMerger, UnitState
from modelmerger.engine.work.executing import compiled
from modelmerger.engine.work.worker import DeviceInUse
from modelmerger.planning.slices import slices

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 64 << 20
"""Bytes of statistics that are kept. A tensor whose own were dropped is measured again, with the same result."""


class OnDemand:
    """Makes elements of tensors. Safe from several threads, each with memory of its own."""

    def __init__(self, merge: Merge) -> None:
        self._merge = compiled(merge)
        self._device = DeviceInUse(merge.device)
        measurer = Measurer(merge)
        self._measuring = _MeasuringOnDemand(measurer)
        self._merger = SliceMerger(merge, measurer)
        self._local = threading.local()

    def read(self, number: int, start: int, stop: int, buffer: memoryview) -> None:
        """Fills `buffer` with elements `start` to `stop` of a tensor of the plan, in the dtype of the plan.

        On the CPU if the device runs out of memory. Raises `MergeError`.
        """
        try:
            self._fill(number, start, stop, buffer)
        except torch.OutOfMemoryError as error:
            workspace: Workspace | None = getattr(self._local, "workspace", None)
            if workspace is None or workspace.device == CPU:
                raise self._merge.hooks.strategy.out_of_memory_error(error) from error
            del self._local.workspace, self._local.state
            self._device.leave()
            self._fill(number, start, stop, buffer)

    def _fill(self, number: int, start: int, stop: int, buffer: memoryview) -> None:
        workspace: Workspace | None = getattr(self._local, "workspace", None)
        if workspace is None or workspace.device != self._device.current:
            workspace = self._local.workspace = Workspace(self._device.current)
            self._local.state = UnitState()
        state: UnitState = self._local.state
        if state.tensor is None or state.tensor.index != number:
            state.totals = {number: self._measuring.totals(number, workspace)}
        tensor = self._merger.tensor(number, state)
        bits, out = tensor.bits, torch.frombuffer(buffer, dtype=torch.uint8)
        for part in slices(tensor.plan, start, stop, self._merge.plan.slice_elements):
            target = out[(part.start - start) * bits // 8 : (part.stop - start) * bits // 8]
            tensor.write_slice(part, target, workspace, state)
        state.take()  # counts would depend on how often a slice is read


class _MeasuringOnDemand:
    """Measures a tensor when its totals are first asked for, in the thread that asks; others that ask wait."""

    def __init__(self, measurer: Measurer) -> None:
        self._measurer = measurer
        tensors = range(len(measurer.merge.plan.tensors))
        self._locks = {number: threading.Lock() for number in tensors if measurer.rounds(number)}
        self._kept: OrderedDict[int, Sequence[Tensor]] = OrderedDict()
        self._keeping = threading.Lock()

    def totals(self, number: int, workspace: Workspace) -> "Sequence[Tensor]":
        """One a round; none for a tensor that is not measured. The same bits as in a merge that is written."""
        if number not in self._locks:
            return ()
        with self._locks[number]:
            found = self._kept.get(number)
            if found is None:
                found = self._measurer.measure_all(number, workspace, never)
            self._keep(number, found)
            return found

    def _keep(self, number: int, totals: "Sequence[Tensor]") -> None:
        """Keeps these, and of the others the last used ones."""
        with self._keeping:
            self._kept[number] = totals
            self._kept.move_to_end(number)
            while len(self._kept) > 1 and sum(t.nbytes for kept in self._kept.values() for t in kept) > KEPT:
                self._kept.popitem(last=False)
