"""Merged tensors in memory, in place of a directory."""

import torch

from modelmerger.inputs.tensor_bytes import bytes_of
from modelmerger.inputs.torch_dtypes import torch_dtype
from modelmerger.output.sinks.tensor_sink import TensorSink
from modelmerger.values.layout import Layout, OutputTensor


class MemorySink(TensorSink):
    """Keeps each merged tensor in memory of its own, to which every number is written once.

    layout: of the merge. Raises `ValueError` for a dtype that torch does not have.

    >>> sink = MemorySink(Layout("safetensors", []))
    >>> sink.tensors
    {}
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.tensors = {
            placement.tensor.name: torch.empty(placement.tensor.shape, dtype=torch_dtype(placement.tensor.dtype))
            for file in layout.files
            for placement in file.placements
        }
        """By name, on the CPU, in the shapes and dtypes of the layout; anything, until they are written."""
        self._memory = {name: bytes_of(tensor.view(-1)) for name, tensor in self.tensors.items() if tensor.numel()}

    def memory(self, tensor: OutputTensor) -> memoryview:
        """The memory of that tensor."""
        return self._memory[tensor.name]
