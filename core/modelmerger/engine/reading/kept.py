"""Inputs that come from a device are kept from when they are measured until they are merged, and so are read once."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from attrs import define, field

from modelmerger.engine.arithmetic import Workspace
from modelmerger.inputs.tensor_bytes import bytes_of
from modelmerger.planning.cost import bytes_held, read_once
from modelmerger.planning.slices import MEASURED
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.plan import MergePlan

if TYPE_CHECKING:
    from torch import Tensor


@define(eq=False)
class _Block:
    """`MEASURED` elements of one input of a tensor, or fewer at its end, as they are stored."""

    content: "Tensor"
    left: int
    """Elements that were not merged yet."""
    users: int = 0
    """How many threads copy from it now."""


@define(eq=False)
class KeptInputs:
    """Holds at most so many bytes for all workers together. Safe from several threads.

    A tensor is kept whole or not at all. A block goes when all of its elements were merged; what is asked for after
    that is read again.
    """

    plan: MergePlan
    """Of the merge."""
    checkpoints: Sequence[Checkpoint]
    """What its tensors are read from."""
    most: int
    """Bytes."""
    _held: dict[int, int] = field(factory=dict, init=False)
    _refused: set[int] = field(factory=set, init=False)
    _blocks: dict[tuple[int, int, int], _Block] = field(factory=dict, init=False)
    _free: "list[Tensor]" = field(factory=list, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def measured(self, tensor: int, number: int, start: int, stop: int, workspace: Workspace) -> "Tensor":
        """Elements of an input of a tensor, for a measurement: as `Workspace.read` gives them.

        tensor: its index in the plan. number: of the checkpoint.
        """
        checkpoint, name = self._input(tensor, number)
        whole = stop == min(start + MEASURED, self.plan.tensors[tensor].elements)
        if start % MEASURED or not whole or not self._admits(tensor):
            return workspace.read(checkpoint, name, start, stop)
        length = checkpoint.tensors[name].span(start, stop)[1]
        block = self._blocks.get((tensor, number, start))
        if block is None:
            content = self._memory(length)
            workspace.fill(checkpoint, name, [(start, stop)], bytes_of(content))
            block = _Block(content, stop - start)
            with self._lock:
                self._blocks[tensor, number, start] = block
        return workspace.as_stored(checkpoint, name, block.content)

    def merged(self, tensor: int, number: int, start: int, stop: int, workspace: Workspace, purpose: str) -> "Tensor":
        """Elements of an input of a tensor, for merging: as `Workspace.read` gives them."""
        checkpoint, name = self._input(tensor, number)
        info = checkpoint.tensors[name]
        with self._used(tensor, number, start, stop) as blocks:
            if not blocks:
                return workspace.read(checkpoint, name, start, stop, purpose)
            target = workspace.host(purpose, info.span(start, stop)[1], torch.uint8)
            for first, block in blocks.items():
                low, high = max(start, first), min(stop, first + MEASURED)
                part = slice(info.span(first, low)[1], info.span(first, high)[1])
                target[info.span(start, low)[1] : info.span(start, high)[1]] = block.content[part]
        workspace.count(checkpoint, name, start, stop)
        return workspace.as_stored(checkpoint, name, target)

    def has(self, tensor: int, start: int) -> bool:
        """Whether the block at this element is kept, of any input."""
        first = start // MEASURED * MEASURED
        return any((tensor, number, first) in self._blocks for number in self.plan.tensors[tensor].inputs)

    def holds(self, tensor: int) -> bool:
        """Whether a tensor is kept, all of it or what was not merged yet."""
        return tensor in self._held

    def forget(self, tensor: int) -> None:
        """A tensor is merged: what is left of it goes."""
        with self._lock:
            for key in [key for key in self._blocks if key[0] == tensor]:
                self._recycle(self._blocks.pop(key))
            self._held.pop(tensor, None)

    def _input(self, tensor: int, number: int) -> tuple[Checkpoint, str]:
        return self.checkpoints[number], self.plan.tensors[tensor].name_in(number)

    def _admits(self, tensor: int) -> bool:
        """Whether a tensor is kept, which is decided when it is first asked."""
        if tensor in self._held or tensor in self._refused:
            return tensor in self._held
        with self._lock:
            if tensor not in self._held and tensor not in self._refused:
                needed = bytes_held(self.checkpoints, self.plan.tensors[tensor])
                fits = sum(self._held.values()) + needed <= self.most
                if fits and read_once(self.plan.ways, self.checkpoints, self.plan.tensors[tensor], self.most):
                    self._held[tensor] = needed
                else:
                    self._refused.add(tensor)
        return tensor in self._held

    def _memory(self, length: int) -> "Tensor":
        with self._lock:
            memory = self._free.pop() if self._free else None
        return memory if memory is not None and len(memory) == length else torch.empty(length, dtype=torch.uint8)

    @contextlib.contextmanager
    def _used(self, tensor: int, number: int, start: int, stop: int) -> "Iterator[dict[int, _Block]]":
        """The blocks that hold these elements, by their first one, to be copied from; none unless all are there.

        Rows that two units share are merged twice, so that a block may be over while another thread copies from it.
        """
        firsts = range(start // MEASURED * MEASURED, stop, MEASURED)
        with self._lock:
            found = {first: self._blocks.get((tensor, number, first)) for first in firsts}
            blocks = {first: block for first, block in found.items() if block is not None}
            if len(blocks) < len(found):
                blocks = {}
            for block in blocks.values():
                block.users += 1
        try:
            yield blocks
        finally:
            with self._lock:
                for first, block in blocks.items():
                    block.users -= 1
                    block.left -= min(stop, first + MEASURED) - max(start, first)
                    if block.left <= 0 and self._blocks.pop((tensor, number, first), None) is not None:
                        self._held[tensor] -= len(block.content)
                        self._recycle(block)

    def _recycle(self, block: _Block) -> None:
        """Its memory is used again, unless somebody still copies from it."""
        if not block.users:
            self._free.append(block.content)
