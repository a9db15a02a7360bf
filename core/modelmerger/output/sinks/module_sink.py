"""Merged tensors put into tensors that exist already, such as the parameters of a module."""

import threading
from collections.abc import Iterator, Mapping

import torch

from modelmerger.inputs.tensor_bytes import MemoryMap, bytes_of, where
from modelmerger.inputs.torch_dtypes import torch_dtype
from modelmerger.output.sinks.tensor_sink import TensorSink
from modelmerger.values.errors import ModelCompatibilityError, Problem
from modelmerger.values.layout import BLOCK, Layout, OutputTensor, Placement
from modelmerger.values.work.block_record import BlockRecord

Targets = torch.nn.Module | Mapping[str, torch.Tensor]


def targets_of(into: Targets) -> dict[str, torch.Tensor]:
    """The tensors of a module by the names of its state dict, or those of a mapping, without gradients.

    They have the memory of the given ones.
    """
    found = into.state_dict() if isinstance(into, torch.nn.Module) else into
    return {name: tensor.detach() for name, tensor in found.items() if isinstance(tensor, torch.Tensor)}


class ModuleSink(TensorSink):
    """Puts merged tensors into those of a module or a mapping, which keep their memory, device and gradients.

    A tensor is replaced in one go, when all of its numbers are there, so a merge may write into one of its own models:
    whoever reads a tensor gets old numbers alone, or new ones alone. Besides the module, what is in memory are the
    tensors that workers are at.

    layout: of the merge. into: has a tensor of the same name, shape and dtype for each tensor of the layout, and no
    other, tied ones apart. Raises `ModelCompatibilityError` where it does not.
    """

    def __init__(self, layout: Layout, into: Targets) -> None:
        super().__init__(layout)
        self.tensors = _checked(layout, targets_of(into))
        """Those that are written, by name."""
        self._begun: dict[str, torch.Tensor] = {}
        self._put: set[str] = set()
        self._lock = threading.Lock()

    def memory(self, tensor: OutputTensor) -> memoryview:
        """Where the numbers of a tensor wait until all of them are there."""
        with self._lock:
            if tensor.name not in self._begun:
                self._begun[tensor.name] = torch.empty(tensor.shape, dtype=torch_dtype(tensor.dtype))
            return bytes_of(self._begun[tensor.name].view(-1))

    def record(self, file: int, block: int, record: BlockRecord) -> None:
        """Keeps the record of a finished block, and puts the tensors that are whole by it where they belong."""
        with self._lock:
            super().record(file, block, record)
            around = self.placements(file, block * BLOCK, (block + 1) * BLOCK)
            whole = [placement.tensor.name for placement in around if self._is_whole(file, placement)]
            ready = {name: self._begun.pop(name) for name in whole if name in self._begun}
            new = {name: tensor for name, tensor in ready.items() if name not in self._put}
            self._put.update(new)
        for name, tensor in new.items():
            self.tensors[name].copy_(tensor)

    def _is_whole(self, file: int, placement: Placement) -> bool:
        blocks = range(placement.offset // BLOCK, -(-(placement.offset + placement.tensor.bytes) // BLOCK))
        return all((file, block) in self.records for block in blocks)


def _checked(layout: Layout, targets: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    wanted = [placement.tensor for file in layout.files for placement in file.placements]
    problems = [problem for tensor in wanted if (problem := _problem(tensor, targets.get(tensor.name)))]
    if problems:
        raise ModelCompatibilityError(*problems)
    written = {tensor.name: targets[tensor.name] for tensor in wanted}
    if problems := [*_untold(targets, written)]:
        raise ModelCompatibilityError(*problems)
    return written


def _problem(wanted: OutputTensor, target: torch.Tensor | None) -> Problem | None:
    """Why the merged tensor cannot be put there; None if it can."""
    if target is None:
        return Problem("is merged, and 'out' has no tensor of this name.", "out", wanted.name)
    if target.is_meta:
        return Problem("is on the meta device, so nothing can be put there. Load the module first.", "out", wanted.name)
    if type(target) is not torch.Tensor or target.is_quantized or target.layout != torch.strided:
        message = f"is not a plain tensor ({type(target).__name__}): sharded, sparse or quantised."
        return Problem(message, "out", wanted.name)
    if tuple(target.shape) != wanted.shape:
        message = f"has shape {list(target.shape)} here, and the merged one has {list(wanted.shape)}."
        return Problem(message, "out", wanted.name)
    if target.dtype != torch_dtype(wanted.dtype):
        message = f"is {target.dtype} here, and {wanted.dtype} is merged."
        return Problem(message, "out", wanted.name)
    return None


def _untold(targets: Mapping[str, torch.Tensor], written: Mapping[str, torch.Tensor]) -> Iterator[Problem]:
    """Tensors of the module that would be written twice, or not at all."""
    memory = MemoryMap(written)
    for first, second in memory.overlaps():
        message = f"shares memory with '{first}', and each of them is merged. Untie them."
        yield Problem(message, "out", second)
    for name, tensor in targets.items():
        tied = any(where(tensor) == where(written[other]) for other in memory.sharing(tensor))
        if name not in written and tensor.numel() and not tied:
            message = "is not merged, so it would stay as it is. Leave it out of 'out', or give it to every model."
            yield Problem(message, "out", name)
