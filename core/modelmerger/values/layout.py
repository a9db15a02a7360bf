"""Where every byte of the merged weights will lie: pure data, known before the first tensor is read."""

import json
from collections.abc import Mapping, Sequence

from attrs import field, frozen

BLOCK = 16 << 20
"""Bytes in a block: the unit in which output files are computed, digested, journalled and resumed."""


@frozen
class OutputTensor:
    """A tensor to be written: dtype as safetensors spells it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


@frozen
class Placement:
    """The tensor begins at byte `offset` of its file. Offsets are multiples of the element size."""

    tensor: OutputTensor
    offset: int


@frozen
class OutputFile:
    """A file of weights. `fixed` are bytes at given offsets (a header); fixed bytes and tensors tile the file."""

    name: str
    size: int
    fixed: Sequence[tuple[int, bytes]]
    placements: Sequence[Placement]


@frozen
class Layout:
    """The files of weights, and small whole documents beside them (an index), by file name."""

    format: str
    files: Sequence[OutputFile]
    documents: Mapping[str, bytes] = field(factory=dict)


def shards(tensors: Sequence[OutputTensor], most: int) -> list[list[OutputTensor]]:
    """Tensors fill files of `most` bytes in order; one larger than that gets its own. At least one file, as transformers cuts."""
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
