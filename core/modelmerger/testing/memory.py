"""Tensors in memory in place of files: models that are read, and the output."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from modelmerger.inputs.torch_dtypes import dtype_from_torch
from modelmerger.output.manifest import total_counts, total_observed
from modelmerger.values.checkpoint import Checkpoint, Donor, TensorInfo
from modelmerger.values.plan import MergePlan
from modelmerger.values.work.block_record import BlockRecord

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
        self._bytes = {
            key: value.contiguous().view(-1).view(torch.uint8).numpy().data for key, value in tensors.items()
        }

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Fills the buffer, and remembers the read."""
        offset, length = self.tensors[tensor].span(start, stop)
        buffer[:length] = self._bytes[tensor][offset : offset + length]
        self.reads.append((tensor, start, stop))

    @property
    def bytes_read(self) -> int:
        """How many bytes were read; those that were read twice count twice."""
        return sum(self.tensors[tensor].span(start, stop)[1] for tensor, start, stop in self.reads)


class MemoryStaging:
    """Keeps in memory what the engine writes, in `files`. Bytes that are never written stay 0xAA."""

    def __init__(self, plan: MergePlan) -> None:
        self.files = [bytearray(b"\xaa" * file.size) for file in plan.layout.files]
        self.records: dict[tuple[int, int], BlockRecord] = {}
        self.bytes_written = 0

    @property
    def counts(self) -> Mapping[str, int]:
        """The counts of `finish_tensor`, summed over the merge, as in the manifest."""
        return total_counts(self.records)

    @property
    def observed(self) -> Mapping[str, Mapping[str, float]]:
        """The statistics of `observe_slice`: tensor → statistic → sum over the tensor, as in the manifest."""
        return total_observed(self.records)

    def open_file(self, file: int) -> int:
        """The number of the file."""
        return file

    def write(self, _: int, file: int, content: memoryview, offset: int) -> None:
        """Keeps the content."""
        self.files[file][offset : offset + len(content)] = content
        self.bytes_written += len(content)

    def flush(self, handle: int, file: int, offset: int, length: int) -> None:
        """Has nothing to do: what is written is there."""

    def close_file(self, handle: int, file: int) -> None:
        """Has nothing to do."""

    def record(self, file: int, block: int, record: BlockRecord) -> None:
        """Keeps the record of a finished block."""
        self.records[file, block] = record
