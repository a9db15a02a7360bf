"""What sinks have in common that keep tensors and no files: bytes of a file become bytes of the tensors in it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from modelmerger.output.manifest import total_counts, total_observed
from modelmerger.values.layout import Layout, OutputTensor, PlacedTensors, Placement
from modelmerger.values.work.block_record import BlockRecord


class TensorSink(ABC):
    """A sink that keeps the tensors of a layout, and drops what is in its files beside them."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        """Of the merge that is written."""
        self.records: dict[tuple[int, int], BlockRecord] = {}
        """The blocks that are done, by file and block."""
        self._placed = PlacedTensors(layout)

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
        """Copies each tensor's part of the content into its memory."""
        end = offset + len(content)
        for placement in self.placements(file, offset, end):
            begin = placement.offset
            low, high = max(offset, begin), min(end, begin + placement.tensor.bytes)
            self.memory(placement.tensor)[low - begin : high - begin] = content[low - offset : high - offset]

    def flush(self, handle: int, file: int, offset: int, length: int) -> None:  # noqa: B027 (right for all of them)
        """Has nothing to do: what is written is there."""

    def close_file(self, handle: int, file: int) -> None:  # noqa: B027 (as above)
        """Has nothing to do."""

    def record(self, file: int, block: int, record: BlockRecord) -> None:
        """Keeps the record of a finished block."""
        self.records[file, block] = record

    def placements(self, file: int, begin: int, end: int) -> Iterator[Placement]:
        """The tensors of a file that have bytes between two offsets."""
        return (placement for placement in self._placed.between(file, begin, end) if placement.tensor.bytes)

    @abstractmethod
    def memory(self, tensor: OutputTensor) -> memoryview:
        """Where the bytes of a tensor are to be written. Called from several threads."""
