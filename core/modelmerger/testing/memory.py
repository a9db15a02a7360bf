"""Models in memory that remember what was read of them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from modelmerger.inputs.tensor_bytes import bytes_of
from modelmerger.inputs.torch_dtypes import dtype_from_torch
from modelmerger.values.checkpoint import Checkpoint, Donor, TensorInfo

Tensors = Mapping[str, torch.Tensor]
_NOTHING: Mapping[str, str] = MappingProxyType({})


class MemoryCheckpoint(Checkpoint):
    """A model in memory that remembers what was read of it.

    tensors: by name, of any shape and dtype that safetensors has. config: its config.json. aliases: as in `Checkpoint`.

    >>> model = MemoryCheckpoint("model_0", {"w": torch.tensor([1.0, 2.0])})
    >>> merge_in_memory("weighted", [model])["w"]
    tensor([1., 2.])
    >>> model.reads, model.bytes_read
    ([('w', 0, 2)], 8)
    """

    def __init__(
        self,
        name: str,
        tensors: Tensors,
        config: Mapping[str, Any] | None = None,
        aliases: Mapping[str, str] = _NOTHING,
    ) -> None:
        self.name = name
        self.tensors = {
            key: TensorInfo(dtype_from_torch(value.dtype), tuple(value.shape)) for key, value in tensors.items()
        }
        self.aliases = aliases
        self.files = ()
        self.donor = Donor(None, config)
        self.reads: list[tuple[str, int, int]] = []
        """What was read, in order: tensor, first element, and the element behind the last."""
        self._bytes = {key: bytes_of(value.contiguous().view(-1)) for key, value in tensors.items()}

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Fills the buffer, and remembers the read."""
        offset, length = self.tensors[tensor].span(start, stop)
        buffer[:length] = self._bytes[tensor][offset : offset + length]
        self.reads.append((tensor, start, stop))

    @property
    def bytes_read(self) -> int:
        """How many bytes were read; those that were read twice count twice."""
        return sum(self.tensors[tensor].span(start, stop)[1] for tensor, start, stop in self.reads)
