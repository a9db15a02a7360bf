"""The blocks of the output as units of work: each block is made slice by slice, written, digested and journalled."""

import logging
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from modelmerger.engine.arithmetic import Workspace
from modelmerger.engine.measuring import CancelledError, Measurements, measured_blocks
from modelmerger.engine.merge import CPU, Merge
from modelmerger.engine.tensors import SliceMerger, UnitState
from modelmerger.output.digests import Piece, PieceDigests, block_count
from modelmerger.output.journal import BlockRecord
from modelmerger.output.sink import Sink
from modelmerger.planning.slices import slices, window
from modelmerger.values.dtypes import DTYPES
from modelmerger.values.errors import MergeError
from modelmerger.values.layout import BLOCK, OutputFile, Placement
from modelmerger.values.units import Unit

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("modelmerger")
MEASURES_A_UNIT = 32
"""Blocks of a tensor that one unit measures."""


class MergeWork:
    """The work of one merge, for `run_slices`. Blocks that are already staged need no unit."""

    def __init__(
        self,
        merge: Merge,
        sink: Sink,
        advance: Callable[[int], None],
    ) -> None:
        self._plan = plan = merge.plan
        self._checkpoints = merge.checkpoints
        self._reads_ahead = merge.settings.options.reads_ahead
        self._window = window(plan.tensors)
        self._sink = sink
        self._advance = advance
        self._strategy = merge.hooks.strategy
        self._device = merge.device
        self._leaving = threading.Lock()
        self._cancelled = threading.Event()
        self._local = threading.local()
        self._index = {tensor.name: number for number, tensor in enumerate(plan.tensors)}
        self._ordered = [sorted(f.placements, key=lambda p: (p.offset, p.tensor.bytes)) for f in plan.layout.files]
        self._offsets = [[placement.offset for placement in placements] for placements in self._ordered]
        self._measurements = Measurements(merge, self._cancelled)
        self._merger = SliceMerger(merge, self._measurements)
        self.units: Sequence[Unit] = list(self._in_order())

    @property
    def workers(self) -> int:
        """How many units to run at a time."""
        return self._plan.workers

    def cancel(self) -> None:
        """Makes running units return at their next slice."""
        self._cancelled.set()

    def run(self, unit: Unit) -> None:
        """Does one unit, on the CPU if the device runs out of memory. On an error, cancels the others and raises it."""
        try:
            try:
                self._do(unit)
            except torch.OutOfMemoryError as error:
                self._leave_device(error)
                self._do(unit)
        except CancelledError:
            pass
        except (MergeError, MemoryError):
            self.cancel()
            raise
        except Exception as error:
            self.cancel()
            reason = f"a bug in modelmerger: {type(error).__name__}: {error}. Run it with --debug and report it."
            raise MergeError(reason) from error
        except BaseException:
            self.cancel()
            raise

    def _do(self, unit: Unit) -> None:
        workspace: Workspace | None = getattr(self._local, "workspace", None)
        if workspace is None or workspace.device != self._device:
            workspace = self._local.workspace = Workspace(self._device)
        if unit.kind == "measure":
            self._measurements.measure(unit, workspace)
            self._advance(workspace.take_bytes_read())
        else:
            self._write(unit, workspace)

    def _leave_device(self, error: torch.OutOfMemoryError) -> None:
        """Merges slices on the CPU from now on."""
        if getattr(self._local, "workspace", None) is None or self._local.workspace.device == CPU:
            raise self._strategy.out_of_memory_error(error) from error
        self._local.workspace = None
        with self._leaving:
            if self._device != CPU:
                log.warning("%s is out of memory; the merge goes on on the CPU.", self._device)
                self._device = CPU
        torch.cuda.empty_cache()

    def _in_order(self) -> Iterator[Unit]:
        """Units in order. A measurement comes one writing unit before it is needed, so workers rarely wait for it."""
        measured: set[int] = set()
        waiting: list[Unit] = []
        for number, file in enumerate(self._plan.layout.files):
            for first, last in self._runs(file):
                if all((number, block) in self._sink.records for block in range(first, last)):
                    continue
                for placement in self._placements(number, first * BLOCK, last * BLOCK):
                    index = self._index[placement.tensor.name]
                    if index not in measured and self._measurements.measures(index):
                        measured.add(index)
                        yield from self._measuring(index)
                yield from waiting
                waiting = [Unit("write", number, first, last)]
        yield from waiting

    def _measuring(self, index: int) -> Iterator[Unit]:
        blocks = measured_blocks(self._plan.tensors[index])
        for start in range(0, blocks, MEASURES_A_UNIT):
            yield Unit("measure", index, start, min(blocks, start + MEASURES_A_UNIT))

    def _runs(self, file: OutputFile) -> Iterator[tuple[int, int]]:
        """Ranges of blocks that must be made together: single ones, unless a tensor merged whole crosses a border."""
        borders = set(range(1, block_count(file.size)))
        for placement in file.placements:
            if self._plan.tensors[self._index[placement.tensor.name]].granularity == "whole":
                end = placement.offset + placement.tensor.bytes
                borders -= set(range(placement.offset // BLOCK + 1, -(-end // BLOCK)))
        edges = [0, *sorted(borders), block_count(file.size)]
        yield from ((a, b) for a, b in zip(edges, edges[1:], strict=False) if a < b)

    def _placements(self, file: int, begin: int, end: int) -> Iterator[Placement]:
        """The tensors of a file that have bytes between two offsets."""
        placements = self._ordered[file]
        for number in range(max(0, bisect_right(self._offsets[file], begin) - 1), len(placements)):
            placement = placements[number]
            if placement.offset >= end:
                break
            if placement.offset + placement.tensor.bytes > begin:
                yield placement

    def _write(self, unit: Unit, workspace: Workspace) -> None:
        file = self._plan.layout.files[unit.of]
        handle = self._sink.open_file(unit.of)
        try:
            state = UnitState()
            for block in range(unit.first, unit.last):
                if (unit.of, block) in self._sink.records:
                    continue
                begin, end = block * BLOCK, min(file.size, (block + 1) * BLOCK)
                self._read_ahead(unit.of, begin, end)
                pieces = self._write_block(handle, unit.of, begin, end, workspace, state)
                self._advance(workspace.take_bytes_read() + end - begin)
                record = BlockRecord(pieces, *state.take())
                self._sink.flush(handle, unit.of, begin, end - begin)
                self._sink.record(unit.of, block, record)
        finally:
            self._sink.close_file(handle, unit.of)

    def _write_block(
        self, handle: int, file: int, begin: int, end: int, workspace: Workspace, state: UnitState
    ) -> list[Piece]:
        """Makes the bytes between two offsets of a file, window by window, and digests and writes them."""
        digests = PieceDigests()
        size = min(self._window, end - begin)
        window, out = workspace.memory("window", size), workspace.host("window", size, torch.uint8)
        written = begin
        for offset, source in self._sources(file, begin, end):
            name, length = ("", len(source)) if isinstance(source, bytes) else (source.tensor.name, source.tensor.bytes)
            low, stop = max(begin, offset), min(end, offset + length)
            while low < stop:
                high = min(stop, written + size)
                here = slice(low - written, high - written)
                if isinstance(source, bytes):
                    window[here] = source[low - offset : high - offset]
                else:
                    self._fill(source, low - offset, high - offset, out[here], workspace, state)
                digests.add(window[here], name)
                if high in (end, written + size):
                    self._sink.write(handle, file, window[: high - written], written)
                    written = high
                low = high
        return digests.pieces()

    def _read_ahead(self, file: int, begin: int, end: int) -> None:
        """Tells the system which parts of the inputs the bytes between two offsets of a file need."""
        if not self._reads_ahead:
            return
        for placement in self._placements(file, begin, end):
            tensor = self._plan.tensors[self._index[placement.tensor.name]]
            bits = DTYPES[tensor.dtype].bits
            low, high = max(0, begin - placement.offset), min(placement.tensor.bytes, end - placement.offset)
            for checkpoint in tensor.inputs:
                name = tensor.name_in(checkpoint)
                self._checkpoints[checkpoint].prefetch(name, low * 8 // bits, high * 8 // bits)

    def _sources(self, file: int, begin: int, end: int) -> list[tuple[int, bytes | Placement]]:
        """The fixed bytes and tensors between two offsets of a file, each with its own offset, in order."""
        found: list[tuple[int, bytes | Placement]] = [
            (offset, content)
            for offset, content in self._plan.layout.files[file].fixed
            if offset < end and offset + len(content) > begin
        ]
        found += [
            (placement.offset, placement) for placement in self._placements(file, begin, end) if placement.tensor.bytes
        ]
        return sorted(found, key=lambda item: item[0])

    def _fill(
        self, source: Placement, low: int, high: int, out: "Tensor", workspace: Workspace, state: UnitState
    ) -> None:
        """Makes bytes `low` to `high` of a tensor, slice by slice."""
        tensor = self._merger.tensor(self._index[source.tensor.name], state)
        bits = tensor.bits
        start, stop = low * 8 // bits, high * 8 // bits
        for part in slices(tensor.plan, start, stop, self._plan.slice_elements):
            if self._cancelled.is_set():
                raise CancelledError
            target = out[part.start * bits // 8 - low : part.stop * bits // 8 - low]
            tensor.write_slice(part, target, workspace, state)
