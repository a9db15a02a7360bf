"""Which tensors lie in which blocks of the output's files, and which blocks must be made together."""

from collections.abc import Iterator

from modelmerger.output.digests import block_count
from modelmerger.values.layout import BLOCK, OutputFile, PlacedTensors, Placement
from modelmerger.values.plan import MergePlan


class OutputBlocks:
    """The files of a plan's layout, seen block by block. files and tensors: by their index in the plan."""

    def __init__(self, plan: MergePlan) -> None:
        self._plan = plan
        self.index = {tensor.name: number for number, tensor in enumerate(plan.tensors)}
        """Of each tensor in the plan, by name."""
        self._placed = PlacedTensors(plan.layout)

    def runs(self, file: OutputFile) -> Iterator[tuple[int, int]]:
        """Ranges of blocks that must be made together: single ones, unless a tensor merged whole crosses a border."""
        borders = set(range(1, block_count(file.size)))
        for placement in file.placements:
            if self._plan.tensors[self.index[placement.tensor.name]].granularity == "whole":
                end = placement.offset + placement.tensor.bytes
                borders -= set(range(placement.offset // BLOCK + 1, -(-end // BLOCK)))
        edges = [0, *sorted(borders), block_count(file.size)]
        yield from ((a, b) for a, b in zip(edges, edges[1:], strict=False) if a < b)

    def placements(self, file: int, begin: int, end: int) -> Iterator[Placement]:
        """The tensors of a file that have bytes between two offsets."""
        return self._placed.between(file, begin, end)

    def sources(self, file: int, begin: int, end: int) -> list[tuple[int, bytes | Placement]]:
        """The fixed bytes and tensors between two offsets of a file, each with its own offset, in order."""
        found: list[tuple[int, bytes | Placement]] = [
            (offset, content)
            for offset, content in self._plan.layout.files[file].fixed
            if offset < end and offset + len(content) > begin
        ]
        found += [
            (placement.offset, placement) for placement in self.placements(file, begin, end) if placement.tensor.bytes
        ]
        return sorted(found, key=lambda item: item[0])
