"""Blocks of the output: each is made window by window and slice by slice, digested and written."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from attrs import field, frozen

from modelmerger.engine.arithmetic import Workspace
from modelmerger.engine.cancelling import Cancelled, CancelledError
from modelmerger.engine.output_blocks import OutputBlocks
from modelmerger.engine.reading.ahead import read_ahead
from modelmerger.engine.tensors import SliceMerger, UnitState
from modelmerger.engine.windows import Windows
from modelmerger.output.digests import PieceDigests
from modelmerger.output.sink import Writer
from modelmerger.planning.cost import BEHIND
from modelmerger.planning.slices import slices, window
from modelmerger.values.dtypes import DTYPES
from modelmerger.values.layout import BLOCK, Placement
from modelmerger.values.work.block_record import BlockRecord, Piece
from modelmerger.values.work.units import Unit

if TYPE_CHECKING:
    from torch import Tensor


@frozen(eq=False, repr=False)
class BlockWriter:
    """Makes blocks of the output. Safe from several threads, each with its own workspace."""

    merger: SliceMerger
    """Makes the slices."""
    blocks: OutputBlocks
    """Those of the plan."""
    writer: Writer
    """Takes what is made."""
    cancelled: Cancelled
    """Whether to stop."""
    _window: int = field(init=False)
    _behind: "ThreadPoolExecutor | None" = field(init=False)

    @_window.default
    def _find_window(self) -> int:
        plan = self.merger.merge.plan
        return window(plan.tensors, plan.workers)

    @_behind.default
    def _start_behind(self) -> "ThreadPoolExecutor | None":
        return ThreadPoolExecutor(BEHIND, "write") if self.merger.merge.plan.direct else None

    def write(
        self, unit: Unit, totals: Mapping[int, Sequence["Tensor"]], workspace: Workspace
    ) -> dict[int, BlockRecord]:
        """Makes and writes a unit's blocks. Returns what is known of each. Raises `CancelledError`."""
        file = self.merger.merge.plan.layout.files[unit.of]
        handle = self.writer.open_file(unit.of)
        records = {}
        try:
            state = UnitState(totals)
            for block in range(unit.first, unit.last):
                begin, end = block * BLOCK, min(file.size, (block + 1) * BLOCK)
                with Windows(self.writer, handle, unit.of, begin, workspace, self._behind) as windows:
                    pieces = self._write_block(windows, unit.of, begin, end, workspace, state)
                records[block] = BlockRecord(pieces, *state.take())
                self.writer.flush(handle, unit.of, begin, end - begin)
        finally:
            self.writer.close_file(handle, unit.of)
        return records

    def read_ahead(self, unit: Unit) -> None:
        """Says that a unit will be written next: which parts of the inputs it needs, in the order of reading."""
        merge = self.merger.merge
        begin, end = unit.first * BLOCK, unit.last * BLOCK
        for placement in self.blocks.placements(unit.of, begin, end):
            index = self.blocks.index[placement.tensor.name]
            tensor = merge.plan.tensors[index]
            bits = DTYPES[tensor.dtype].bits
            low, high = max(0, begin - placement.offset), min(placement.tensor.bytes, end - placement.offset)
            for start, stop in self.merger.measurer.read_again(index, low * 8 // bits, high * 8 // bits):
                read_ahead(merge, tensor, start, stop)

    def _write_block(
        self, windows: Windows, file: int, begin: int, end: int, workspace: Workspace, state: UnitState
    ) -> list[Piece]:
        """Makes the bytes between two offsets of a file, window by window, and digests and writes them."""
        digests = PieceDigests()
        written = begin
        window, out = windows.next(min(self._window, end - begin))
        for offset, source in self.blocks.sources(file, begin, end):
            name, length = ("", len(source)) if isinstance(source, bytes) else (source.tensor.name, source.tensor.bytes)
            low, stop = max(begin, offset), min(end, offset + length)
            while low < stop:
                high = min(stop, written + len(window))
                here = slice(low - written, high - written)
                if isinstance(source, bytes):
                    window[here] = source[low - offset : high - offset]
                else:
                    self._fill(source, low - offset, high - offset, out[here], workspace, state)
                digests.add(window[here], name)
                if high == written + len(window):
                    windows.write()
                    written = high
                    if written < end:
                        window, out = windows.next(min(self._window, end - written))
                low = high
        return digests.pieces()

    def _fill(
        self, source: Placement, low: int, high: int, out: "Tensor", workspace: Workspace, state: UnitState
    ) -> None:
        """Makes bytes `low` to `high` of a tensor, slice by slice."""
        tensor = self.merger.tensor(self.blocks.index[source.tensor.name], state)
        bits = tensor.bits
        start, stop = low * 8 // bits, high * 8 // bits
        for part in slices(tensor.plan, start, stop, self.merger.merge.plan.slice_elements):
            if self.cancelled():
                raise CancelledError
            target = out[part.start * bits // 8 - low : part.stop * bits // 8 - low]
            tensor.write_slice(part, target, workspace, state)
