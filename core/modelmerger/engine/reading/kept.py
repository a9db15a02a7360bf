"""Inputs that come from a device are kept from when they are measured until they are merged, and so are read once."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from attrs import define, field

from modelmerger.engine.arithmetic import Workspace
from modelmerger.inputs.direct.aligned import aligned_memory, pages_for
from modelmerger.inputs.tensor_bytes import bytes_of
from modelmerger.planning.cost import from_device
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

    The blocks of a tensor are kept as far as there is room, those of all inputs together. A block goes when all of its
    elements were merged; what is asked for after that is read again, as is what there was no room for. Each block has
    pages of its own, so that they go back to the system at once where those of another length are wanted: an allocator
    would keep a fifth more than it gave.
    """

    plan: MergePlan
    """Of the merge."""
    checkpoints: Sequence[Checkpoint]
    """What its tensors are read from."""
    most: int
    """Bytes."""
    _held: int = field(default=0, init=False)
    _admitted: dict[int, set[int]] = field(factory=dict, init=False)
    _blocks: dict[tuple[int, int, int], _Block] = field(factory=dict, init=False)
    _taken: int = field(default=0, init=False)
    _free: "dict[int, list[Tensor]]" = field(factory=dict, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def measured(self, tensor: int, number: int, start: int, stop: int, workspace: Workspace) -> "Tensor":
        """Elements of an input of a tensor, for a measurement: as `Workspace.read` gives them.

        tensor: its index in the plan. number: of the checkpoint.
        """
        checkpoint, name = self._input(tensor, number)
        whole = stop == min(start + MEASURED, self.plan.tensors[tensor].elements)
        if start % MEASURED or not whole or not self._admits(tensor, start, stop):
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
            if not any(blocks.values()):
                return workspace.read(checkpoint, name, start, stop, purpose)
            length = info.span(start, stop)[1]
            target, memory = workspace.host(purpose, length, torch.uint8), workspace.memory(purpose, length)
            for first, block in blocks.items():
                low, high = max(start, first), min(stop, first + MEASURED)
                place = slice(info.span(start, low)[1], info.span(start, high)[1])
                if block is None:
                    workspace.fill(checkpoint, name, [(low, high)], memory[place])
                else:
                    target[place] = block.content[info.span(first, low)[1] : info.span(first, high)[1]]
                    workspace.count(checkpoint, name, low, high)
        return workspace.as_stored(checkpoint, name, target)

    def missing(self, tensor: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The ranges between two elements of a tensor that are not kept."""
        admitted, low = self._admitted.get(tensor, ()), start
        for first in range(start // MEASURED * MEASURED, stop, MEASURED):
            if first in admitted:
                if low < first:
                    yield low, first
                low = first + MEASURED
        if low < stop:
            yield low, stop

    def forget(self, tensor: int) -> None:
        """A tensor is merged: what is left of it goes."""
        with self._lock:
            for key in [key for key in self._blocks if key[0] == tensor]:
                self._let_go(key)
            self._admitted.pop(tensor, None)

    def _input(self, tensor: int, number: int) -> tuple[Checkpoint, str]:
        return self.checkpoints[number], self.plan.tensors[tensor].name_in(number)

    def _admits(self, tensor: int, start: int, stop: int) -> bool:
        """Whether a block of the inputs of a tensor is kept, which is decided whenever it is asked and is not kept."""
        if start in self._admitted.get(tensor, ()):
            return True
        planned = self.plan.tensors[tensor]
        if not from_device(self.plan.ways, self.checkpoints, planned):
            return False
        inputs = (self.checkpoints[i].tensors[planned.name_in(i)] for i in planned.inputs)
        needed = sum(pages_for(info.span(start, stop)[1]) for info in inputs)
        with self._lock:
            if start not in self._admitted.get(tensor, ()):
                if self._held + needed > self.most:
                    return False
                self._held += needed
                self._admitted.setdefault(tensor, set()).add(start)
        return True

    def _memory(self, length: int) -> "Tensor":
        """Of a block that was let go, if one was as long; else new pages, and pages of others go if need be."""
        with self._lock:
            if self._free.get(length):
                return self._free[length].pop()
            self._taken += pages_for(length)
            for other, unused in self._free.items():
                while unused and self._taken > self.most:
                    unused.pop()
                    self._taken -= pages_for(other)
        return torch.frombuffer(aligned_memory(length), dtype=torch.uint8, count=length)

    @contextlib.contextmanager
    def _used(self, tensor: int, number: int, start: int, stop: int) -> "Iterator[dict[int, _Block | None]]":
        """The blocks that hold these elements, by their first one, to be copied from; None for one that is not kept.

        Rows that two units share are merged twice, so that a block may be over while another thread copies from it.
        """
        firsts = range(start // MEASURED * MEASURED, stop, MEASURED)
        with self._lock:
            blocks = {first: self._blocks.get((tensor, number, first)) for first in firsts}
            there = {first: block for first, block in blocks.items() if block is not None}
            for block in there.values():
                block.users += 1
        try:
            yield blocks
        finally:
            with self._lock:
                for first, block in there.items():
                    block.users -= 1
                    block.left -= min(stop, first + MEASURED) - max(start, first)
                    if block.left <= 0 and (tensor, number, first) in self._blocks:
                        self._let_go((tensor, number, first))

    def _let_go(self, key: tuple[int, int, int]) -> None:
        """A block is not kept any more. Its memory is used again, unless somebody still copies from it."""
        block = self._blocks.pop(key)
        length = len(block.content)
        self._held -= pages_for(length)
        if block.users:
            self._taken -= pages_for(length)
        else:
            self._free.setdefault(length, []).append(block.content)
