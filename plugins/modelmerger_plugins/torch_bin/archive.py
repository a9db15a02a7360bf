"""An archive of `torch.save`, laid out before the numbers in it are known.

Everything except the numbers is known in advance: a pickle of names, dtypes and shapes, a zip header before each
tensor, and the directory of the archive at the end. The checksums of the numbers are not known, so they are zero, as
torch writes them with `torch.serialization.set_crc32_options(False)`. torch does not check them; the manifest has
digests instead.
"""

import pickle
import struct
import zlib
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import prod

from attrs import define, field, frozen
from modelmerger import DTYPES, OutputFile, OutputTensor, Placement

ALIGNMENT = 64
"""Bytes. torch.save begins tensors at multiples of it, so that they can be mapped into memory."""
STORAGES = {
    "F64": "DoubleStorage",
    "F32": "FloatStorage",
    "F16": "HalfStorage",
    "BF16": "BFloat16Storage",
    "I64": "LongStorage",
    "I32": "IntStorage",
    "I16": "ShortStorage",
    "I8": "CharStorage",
    "U8": "ByteStorage",
    "BOOL": "BoolStorage",
    "C64": "ComplexFloatStorage",
}
"""The class that a pickle has for the memory of a tensor. For other dtypes, that is memory without a dtype."""
_LARGE, _MANY = 0xFFFFFFFF, 0xFFFF
_UTF8 = 0x800


def laid_out(name: str, tensors: Sequence[OutputTensor]) -> OutputFile:
    """The archive of some tensors, under the name of its file."""
    archive = _Archive()
    archive.add("data.pkl", _pickled(tensors))
    archive.add("byteorder", b"little")
    placements = [Placement(tensor, archive.reserve(f"data/{key}", tensor.bytes)) for key, tensor in enumerate(tensors)]
    archive.add("version", b"3\n")
    archive.close()
    return OutputFile(name, archive.size, archive.fixed, placements)


@frozen
class _Record:
    name: bytes
    offset: int
    """Where its header begins."""
    length: int
    checksum: int


@define(eq=False)
class _Archive:
    """A zip archive without compression."""

    fixed: list[tuple[int, bytes]] = field(factory=list)
    """Bytes at their offsets; the gaps between them are reserved for tensors."""
    size: int = 0
    """Bytes so far."""
    _records: list[_Record] = field(factory=list)

    def add(self, name: str, content: bytes) -> None:
        self._append(self._header(name, len(content), zlib.crc32(content)) + content)

    def reserve(self, name: str, length: int) -> int:
        """Leaves out `length` bytes for a tensor, and returns their offset."""
        self._append(self._header(name, length, 0))
        start = self.size
        self.size += length
        return start

    def close(self) -> None:
        """Adds the directory of the archive."""
        begin = self.size
        directory = b"".join(map(_directory_entry, self._records))
        count = len(self._records)
        end = b""
        if begin >= _LARGE or len(directory) >= _LARGE or count >= _MANY:
            end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), begin)
            end += struct.pack("<4sIQI", b"PK\6\7", 0, begin + len(directory), 1)
        few, short, near = min(count, _MANY), min(len(directory), _LARGE), min(begin, _LARGE)
        end += struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, few, few, short, near, 0)
        self._append(directory + end)

    def _append(self, content: bytes) -> None:
        self.fixed.append((self.size, content))
        self.size += len(content)

    def _header(self, name: str, length: int, checksum: int) -> bytes:
        """The header of a record, padded so that the content behind it is aligned."""
        record = _Record(f"archive/{name}".encode(), self.size, length, checksum)
        self._records.append(record)
        large = struct.pack("<HHQQ", 1, 16, length, length) if length >= _LARGE else b""
        padding = -(record.offset + 30 + len(record.name) + len(large) + 4) % ALIGNMENT
        extra = large + struct.pack("<2sH", b"FB", padding) + b"Z" * padding
        shown = min(length, _LARGE)
        numbers = (45 if large else 20, _UTF8, 0, 0, 0, checksum, shown, shown, len(record.name), len(extra))
        return struct.pack("<4sHHHHHIIIHH", b"PK\3\4", *numbers) + record.name + extra


def _directory_entry(record: _Record) -> bytes:
    large = [record.length, record.length] if record.length >= _LARGE else []
    large += [record.offset] if record.offset >= _LARGE else []
    extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
    length, offset = min(record.length, _LARGE), min(record.offset, _LARGE)
    version = 45 if large else 20
    numbers = (version, version, _UTF8, 0, 0, 0, record.checksum, length, length, len(record.name), len(extra))
    return struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", *numbers, 0, 0, 0, 0, offset) + record.name + extra


def _pickled(tensors: Iterable[OutputTensor]) -> bytes:
    """A pickled dict of names to tensors, whose numbers are records of the archive."""
    members = b"".join(_text(tensor.name) + _tensor(tensor, key) for key, tensor in enumerate(tensors))
    return pickle.PROTO + b"\2" + pickle.EMPTY_DICT + pickle.MARK + members + pickle.SETITEMS + pickle.STOP


def _tensor(tensor: OutputTensor, key: int) -> bytes:
    """A call of torch's function that makes a tensor from memory, offset, shape and strides."""
    known = tensor.dtype in STORAGES
    kind = _global("torch", STORAGES[tensor.dtype]) if known else _global("torch.storage", "UntypedStorage")
    length = prod(tensor.shape) if known else tensor.bytes
    memory = _tuple(_text("storage"), kind, _text(str(key)), _text("cpu"), _number(length)) + pickle.BINPERSID
    strides = [*accumulate(reversed(tensor.shape[1:]), lambda a, b: a * b, initial=1)][::-1] if tensor.shape else []
    parts = [memory, _number(0), _tuple(*map(_number, tensor.shape)), _tuple(*map(_number, strides)), pickle.NEWFALSE]
    parts.append(_global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE)
    if not known:
        parts.append(_global("torch", str(DTYPES[tensor.dtype].torch_name)))
    function = "_rebuild_tensor_v2" if known else "_rebuild_tensor_v3"
    return _global("torch._utils", function) + _tuple(*parts) + pickle.REDUCE


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    content = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(content)) + content


def _number(number: int) -> bytes:
    content = pickle.encode_long(number)
    return pickle.LONG1 + bytes([len(content)]) + content


def _tuple(*parts: bytes) -> bytes:
    return pickle.MARK + b"".join(parts) + pickle.TUPLE
