"""Where every byte of the merged weights will lie: pure data, known before the first tensor is read."""

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
