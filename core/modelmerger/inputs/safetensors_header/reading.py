"""A header from an open file."""

import os

from modelmerger.inputs.safetensors_header.header import Header, HeaderError
from modelmerger.inputs.safetensors_header.parsing import MOST_HEADER_BYTES, check_length, parse_header
from modelmerger.values.text import amount


def read_header(fd: int, size: int) -> Header:
    """The header of an open file of `size` bytes; the descriptor's position is left alone. Raises `HeaderError`."""
    if size < 8:
        raise HeaderError(f"the file is {amount(size, 'byte')} long, and its header's length alone takes 8")
    length = int.from_bytes(_read(fd, 0, 8), "little")
    if length == 0:
        raise HeaderError("the header is 0 bytes long, and even an empty one takes 2")
    if length <= MOST_HEADER_BYTES and length > size - 8:
        raise HeaderError(f"the header claims {length:,} bytes, and the file has {size - 8:,} left for it")
    check_length(length)
    return parse_header(_read(fd, 8, length), size - 8 - length)


def _read(fd: int, offset: int, count: int) -> bytearray:
    buffer = bytearray(count)
    view = memoryview(buffer)
    done = 0
    while done < count:
        got = os.preadv(fd, [view[done:]], offset + done)
        if got == 0:
            raise HeaderError(f"the file ends at byte {offset + done:,}, and its header at byte {offset + count:,}")
        done += got
    return buffer
