"""What the numbers of an adapter's tensors show at a look, without torch: zeros, ones and equal bits."""

import struct
from collections.abc import Iterator

from modelmerger import DTYPES, Checkpoint

CHUNK = 1 << 20
"""Elements that are looked at in one go."""
_ONES = {"F64": struct.pack("<d", 1), "F32": struct.pack("<f", 1), "F16": struct.pack("<e", 1), "BF16": b"\x80\x3f"}


def is_zero(checkpoint: Checkpoint, key: str) -> bool:
    """Whether a tensor of floats is all zeros, 0 or −0. It is read up to the first other number."""
    width = DTYPES[checkpoint.tensors[key].dtype].itemsize
    return all(_is_zero(chunk, width) for chunk in _chunks(checkpoint, key))


def is_one(checkpoint: Checkpoint, key: str) -> bool:
    """Whether a tensor of floats is all ones; false for floats of 8 bits. It is read up to the first other number."""
    one = _ONES.get(checkpoint.tensors[key].dtype)
    return one is not None and all(chunk == one * (len(chunk) // len(one)) for chunk in _chunks(checkpoint, key))


def are_equal(checkpoint: Checkpoint, key: str, other: str, of_other: Checkpoint | None = None) -> bool:
    """Whether two tensors have one dtype, one shape and the same bits.

    `of_other`: the checkpoint that has the other; None for the same one.
    """
    holder = of_other or checkpoint
    if checkpoint.tensors[key] != holder.tensors[other]:
        return False
    pairs = zip(_chunks(checkpoint, key), _chunks(holder, other), strict=True)
    return all(ours == theirs for ours, theirs in pairs)


def are_transposed(checkpoint: Checkpoint, key: str, other: str) -> bool:
    """Whether two matrices have one dtype, and one is the other transposed, bit for bit. Both are read whole."""
    one, two = checkpoint.tensors[key], checkpoint.tensors[other]
    if one.dtype != two.dtype or len(one.shape) != 2 or one.shape != two.shape[::-1]:
        return False
    width, columns = DTYPES[one.dtype].itemsize, one.shape[1]
    ours, theirs = (b"".join(_chunks(checkpoint, name)) for name in (key, other))
    rows = one.elements // columns if columns else 0
    return all(
        ours[i * width + byte :: columns * width] == theirs[i * rows * width : (i + 1) * rows * width][byte::width]
        for i in range(columns)
        for byte in range(width)
    )


def _chunks(checkpoint: Checkpoint, key: str) -> Iterator[bytearray]:
    info = checkpoint.tensors[key]
    for start in range(0, info.elements, CHUNK):
        stop = min(info.elements, start + CHUNK)
        chunk = bytearray((stop - start) * DTYPES[info.dtype].itemsize)
        checkpoint.read(key, start, stop, memoryview(chunk))
        yield chunk


def _is_zero(chunk: bytearray, width: int) -> bool:
    """Whether all bytes are 0, apart from the sign of each element of `width` bytes."""
    if chunk.count(0) == len(chunk):
        return True
    signs = chunk[width - 1 :: width]
    return not signs.strip(b"\0\x80") and len(chunk) - chunk.count(0) == signs.count(0x80)
