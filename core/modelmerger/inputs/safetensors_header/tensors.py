"""What the format demands of tensors: of each name, of the bytes each takes, and of all, which tile the data."""

import re
from collections import Counter
from collections.abc import Sequence

from modelmerger.inputs.safetensors_header.header import HeaderError, TensorEntry, quoted
from modelmerger.inputs.safetensors_header.scanning import SURROGATES
from modelmerger.values.dtypes import DTYPES
from modelmerger.values.text import amount

MOST_DIMENSIONS = 32
"""More than the tensors of any model have."""
LONGEST_NAME = 1024
"""Bytes of UTF-8."""
TOO_LARGE = 1 << 63
"""No number of the format reaches it: sizes, offsets, bytes."""

Content = tuple[str, tuple[int, ...], int]
"""A tensor by what it holds: dtype, shape and bytes."""

_CONTROL = r"[\x00-\x1f\x7f-\x9f]"


def check_name(name: str) -> None:
    """Raises `HeaderError` for a tensor's name that is empty, too long, or no sound text."""
    if not name:
        raise HeaderError("a tensor's name is empty")
    if not name.isprintable():
        if re.search(_CONTROL, name):
            raise HeaderError(f"a tensor's name has a control character, in {quoted(name)}")
        if re.search(SURROGATES, name):
            raise HeaderError(f"a tensor's name has half a surrogate pair, in {quoted(name)}")
    if (length := len(name.encode())) > LONGEST_NAME:
        what = f"a tensor's name, {quoted(name)}, is {length:,} bytes long"
        raise HeaderError(f"{what}, and at most {LONGEST_NAME:,} are allowed")


def byte_size(dtype: str, shape: Sequence[int], name: str) -> int:
    """How many bytes a tensor takes. Raises `HeaderError` where that is too many, or no whole number."""
    if len(shape) > MOST_DIMENSIONS:
        raise HeaderError(f"its shape has {len(shape)} dimensions, and at most {MOST_DIMENSIONS} are allowed", name)
    bits = DTYPES[dtype].bits
    for size in shape:
        bits *= size or 1
    if bits >= 8 * TOO_LARGE:
        raise HeaderError(f"{dtype} of shape {quoted(shape)} takes 2**63 bytes or more", name)
    if 0 in shape:
        return 0
    if bits % 8:
        raise HeaderError(f"{dtype} of shape {quoted(shape)} takes {bits:,} bits, not a whole number of bytes", name)
    return bits // 8


def located(name: str, content: Content, begin: int, end: int, data_start: int, data_size: int) -> TensorEntry:
    """The entry of a tensor from `begin` to `end` of the data. Raises `HeaderError` where it cannot lie there."""
    dtype, shape, size = content
    if begin > end:
        raise HeaderError(f"its data_offsets begin at {begin:,} and end before that, at {end:,}", name)
    if end > data_size:
        raise HeaderError(f"its data_offsets end at {end:,}, and the data at {data_size:,}", name)
    if end - begin != size:
        held = f"data_offsets {begin:,} to {end:,} hold {end - begin:,}"
        raise HeaderError(f"{dtype} of shape {quoted(list(shape))} takes {amount(size, 'byte')}, and {held}", name)
    return TensorEntry(name, dtype, shape, data_start + begin, data_start + end)


def named_twice(entries: Sequence[TensorEntry]) -> HeaderError:
    """What to say of entries of which some have one name."""
    (name, times), *_ = Counter(entry.name for entry in entries).most_common(1)
    return HeaderError(f"the header names this tensor {'twice' if times == 2 else f'{times:,} times'}", name)


def check_tiling(entries: Sequence[TensorEntry], data_start: int, data_size: int) -> None:
    """Raises `HeaderError` unless every byte of the data belongs to exactly one tensor.

    entries: in the order in which the tensors lie.
    """
    reached, before = data_start, ""
    for entry in entries:
        if entry.begin > reached:
            hole = f"from {reached - data_start:,} to {entry.begin - data_start:,}"
            raise HeaderError(f"the data {hole}, just before this tensor, belong to no tensor", entry.name)
        if entry.begin < reached:
            where = f"it begins at {entry.begin - data_start:,}, inside {quoted(before)}"
            raise HeaderError(f"{where}, which ends at {reached - data_start:,}", entry.name)
        reached, before = entry.end, entry.name
    if (ended := reached - data_start) != data_size:
        raise HeaderError(f"the tensors end at {ended:,} of the data, and the data at {data_size:,}")
