"""Where every byte of the merged weights will lie: pure data, known before the first tensor is read."""

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

BLOCK = 16 << 20
"""Bytes in a block: the unit in which output files are computed, digested, journalled and resumed."""


@frozen
class OutputTensor:
    """A tensor to be written."""

    name: str
    """Unique in the output."""
    dtype: str
    """As safetensors spells it ("BF16")."""
    shape: tuple[int, ...]
    """One number a dimension, () for a scalar."""
    bytes: int
    """How many it takes in its file."""


@frozen
class Placement:
    """Where a tensor lies in its file."""

    tensor: OutputTensor
    """Which one."""
    offset: int
    """Of its first byte in the file; a multiple of the element size."""


@frozen
class OutputFile:
    """A file of weights, tiled by its fixed bytes and its tensors: they leave no hole, and none lies in another."""

    name: str
    """A plain name. In a plan, the folder stands before it that the tensors go to, if they go to one."""
    size: int
    """Bytes."""
    fixed: Sequence[tuple[int, bytes]] = field(repr=False)
    """What is no tensor (a header): the offset of each stretch of bytes, and the bytes."""
    placements: Sequence[Placement] = field(repr=False)
    """The tensors in it."""


@frozen
class Layout:
    """The weights of a merge as files."""

    format: str
    """What the config calls it ("safetensors")."""
    files: Sequence[OutputFile]
    """The files of weights."""
    documents: Mapping[str, bytes] = field(factory=dict, repr=False)
    """Small whole files that belong to them (an index): content by name."""

    @property
    def apart(self) -> frozenset[str]:
        """The names of tensors whose files lie in folders, so that they are no part of the model itself."""
        return frozenset(p.tensor.name for file in self.files if "/" in file.name for p in file.placements)


@frozen
class FilesBeside:
    """What becomes of the files that lie beside the weights of the models."""

    copied: Mapping[str, str] = field(factory=dict)
    """Path in the output → the name of the model whose file it is, byte for byte."""
    made: Sequence[str] = ()
    """Paths in the output of what is made anew."""
    left: Mapping[str, Sequence[str]] = field(factory=dict)
    """Name of a model → paths in its directory of what is neither read, nor copied, nor made anew under that path; a
    folder of which all is left is one (`runs/`)."""

    def as_dict(self) -> dict[str, Any]:
        """The inventory as plain data."""
        left = {model: list(names) for model, names in self.left.items()}
        return {"copied": dict(self.copied), "made": list(self.made), "left": left}


@frozen
class InputTensors:
    """What becomes of the tensors of a model."""

    merged: int
    """How many are merged with those of other models."""
    copied: int
    """How many are carried over: one model's alone."""
    left: int
    """How many the output has nothing of."""
    names_copied: Sequence[str] = ()
    """The names of those that are carried over; of many, the first, and how many more there are."""
    names_left: Sequence[str] = ()
    """The same of those of which the output has nothing."""

    def as_dict(self) -> dict[str, Any]:
        """The inventory as plain data."""
        names = {"copied": list(self.names_copied), "left": list(self.names_left)}
        return {"merged": self.merged, "copied": self.copied, "left": self.left, "names": names}


def split_into_shards(tensors: Sequence[OutputTensor], most: int) -> list[list[OutputTensor]]:
    """The tensors of each file, in order: at most `most` bytes, or one larger tensor. At least one file."""
    parts: list[list[OutputTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if parts[-1] and size + tensor.bytes > most:
            parts.append([])
            size = 0
        parts[-1].append(tensor)
        size += tensor.bytes
    return parts


def shard_names(stem: str, suffix: str, count: int) -> list[str]:
    """`model.safetensors`, or `model-00001-of-00002.safetensors` and so on."""
    if count == 1:
        return [f"{stem}{suffix}"]
    return [f"{stem}-{number:05d}-of-{count:05d}{suffix}" for number in range(1, count + 1)]


def weight_index(name: str, files: Sequence[OutputFile]) -> dict[str, bytes]:
    """The index that says which tensor is in which file, under its name; nothing for a single file."""
    if len(files) == 1:
        return {}
    placed = {placement.tensor.name: file.name for file in files for placement in file.placements}
    total = sum(placement.tensor.bytes for file in files for placement in file.placements)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(placed.items()))}
    return {name: (json.dumps(index, ensure_ascii=False, indent=2) + "\n").encode()}


class PlacedTensors:
    """Finds the tensors of a layout by where they lie. Files are given by their number in the layout."""

    def __init__(self, layout: Layout) -> None:
        self._ordered = [sorted(file.placements, key=lambda p: (p.offset, p.tensor.bytes)) for file in layout.files]
        self._offsets = [[placement.offset for placement in placements] for placements in self._ordered]

    def between(self, file: int, begin: int, end: int) -> Iterator[Placement]:
        """The tensors of a file that have bytes between two offsets, in their order."""
        placements = self._ordered[file]
        for number in range(max(0, bisect_right(self._offsets[file], begin) - 1), len(placements)):
            placement = placements[number]
            if placement.offset >= end:
                break
            if placement.offset + placement.tensor.bytes > begin:
                yield placement
