"""The header of a safetensors file, read strictly: one that this module accepts, every reader understands alike."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from json import JSONDecodeError, JSONDecoder, JSONEncoder
from operator import attrgetter
from types import MappingProxyType

from attrs import frozen

from modelmerger.values.dtypes import DTYPES
from modelmerger.values.text import amount, shown

MOST_HEADER_BYTES = 100_000_000
MOST_METADATA_KEYS = 10_000
MOST_DIMENSIONS = 32
LONGEST_NAME = 1024
"""Bytes of UTF-8."""
LONGEST_ENTRY = 4096
"""Characters of one tensor's description. 32 dimensions of twenty digits, each on an indented line, take a third of it."""

_METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}
_TOO_LARGE = 1 << 63

_Content = tuple[str, tuple[int, ...], int]  # dtype, shape, bytes

_space = re.compile(r"[ \t\n\r]*").match
_colon = re.compile(r"[ \t\n\r]*:[ \t\n\r]*").match
_separator = re.compile(r"[ \t\n\r]*([,}])[ \t\n\r]*").match
_control = re.compile(r"[\x00-\x1f\x7f-\x9f]").search
_lone_surrogate = re.compile(r"[\ud800-\udfff]").search
_usual_entry = re.compile(
    rf'"((?!{_METADATA}")[ !#-\[\]-~]{{1,{LONGEST_NAME}}}+)": ?\{{([^}}\]]*+\]), ?'
    r'"data_offsets": ?\[(0|[1-9][0-9]{0,17}+), ?(0|[1-9][0-9]{0,17}+)\]\}[ \t\n\r]*([,}])[ \t\n\r]*'
).match
_string_at = JSONDecoder().raw_decode
_pairs_of = JSONDecoder(object_pairs_hook=lambda pairs: pairs).decode


class HeaderError(Exception):
    """A header that is refused. reason: a sentence without the file's name. tensor: its name, if that is a valid one."""

    def __init__(self, reason: str, tensor: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.tensor = tensor


@frozen(weakref_slot=False)
class TensorEntry:
    """A tensor: dtype as safetensors spells it, and where it lies, from byte `begin` of the file up to byte `end`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@frozen
class Header:
    """entries: by name, in the order in which the tensors lie in the file. data_start: offset of the first byte of data."""

    entries: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    data_start: int


def read_header(fd: int, size: int) -> Header:
    """The header of an open file of `size` bytes; the descriptor's position is left alone. Raises `HeaderError`."""
    if size < 8:
        raise HeaderError(f"the file is {amount(size, 'byte')} long, and its header's length alone takes 8")
    length = int.from_bytes(_read(fd, 0, 8), "little")
    if length == 0:
        raise HeaderError("the header is 0 bytes long, and even an empty one takes 2")
    if length <= MOST_HEADER_BYTES and length > size - 8:
        raise HeaderError(f"the header claims {length:,} bytes, and the file has {size - 8:,} left for it")
    _check_length(length)
    return parse_header(_read(fd, 8, length), size - 8 - length)


def parse_header(raw: bytes | bytearray, data_size: int) -> Header:
    """The header whose JSON is `raw` (what follows the eight bytes of its length), with `data_size` bytes of data behind it.

    Takes time and memory in proportion to `raw`, whatever is in it. Raises `HeaderError` for all that is not exactly the
    format: https://github.com/huggingface/safetensors#format.
    """
    _check_length(len(raw))
    text = _decoded(raw)
    data_start = 8 + len(raw)
    entries: list[TensorEntry] = []
    metadata: dict[str, str] | None = None
    seen: dict[str, _Content] = {}
    position, more = _opened(text, 0)
    while more:
        if (usual := _usual_entry(text, position)) and (known := seen.get(usual[2])):
            entries.append(_placed(usual[1], known, int(usual[3]), int(usual[4]), data_start, data_size))
            position, more = usual.end(), usual[5] == ","
            continue
        name, position = _key(text, position)
        if name != _METADATA:
            content, begin, end, position = _entry(text, position, name)
            entries.append(_placed(name, content, begin, end, data_start, data_size))
            if usual:
                seen[usual[2]] = content
        elif metadata is None:
            metadata, position = _metadata(text, position)
        else:
            raise HeaderError(f"the header has '{_METADATA}' twice")
        position, more = _next(text, position)
    if position != len(text):
        raise HeaderError(f"the header goes on after its end, with {_quoted(text[position : position + 20])}")
    entries.sort(key=attrgetter("begin", "end"))
    by_name = {entry.name: entry for entry in entries}
    if len(by_name) != len(entries):
        raise _named_twice(entries)
    _check_tiling(entries, data_start, data_size)
    return Header(MappingProxyType(by_name), MappingProxyType(metadata or {}), data_start)


def build_header(entries: Sequence[tuple[str, str, Sequence[int], int, int]], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON, padded with spaces to a multiple of 8 bytes.

    entries: (name, dtype, shape, begin, end) in the order in which they are to be listed; begin and end count from the first
    byte of data. Raises `HeaderError` for what `parse_header` would refuse, so that no such file is ever written.
    """
    members = [f'"{_METADATA}":{_json(dict(metadata))}'] if metadata else []
    for name, dtype, shape, begin, end in entries:
        check_name(name)
        members.append(f"{_json(name)}:{_json({'dtype': dtype, 'shape': list(shape), 'data_offsets': [begin, end]})}")
    raw = ("{" + ",".join(members) + "}").encode("utf-8", "surrogatepass")
    raw += b" " * (-len(raw) % 8)
    parse_header(raw, max((entry[4] for entry in entries), default=0))
    return len(raw).to_bytes(8, "little") + raw


_json = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


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


def _check_length(length: int) -> None:
    if length > MOST_HEADER_BYTES:
        raise HeaderError(f"the header claims {length:,} bytes, and at most {MOST_HEADER_BYTES:,} are allowed")


def _decoded(raw: bytes | bytearray) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise HeaderError(f"the header is not UTF-8: {error.reason} at byte {8 + error.start:,} of the file") from None
    if not text.startswith("{"):
        raise HeaderError(f"the header begins with {_quoted(text[:20])}, and must begin with '{{'")
    return text


def _opened(text: str, position: int) -> tuple[int, bool]:
    """Steps over '{': where the first key is and True, or where the empty object ends and False."""
    position = _after_space(text, position + 1)
    if text.startswith("}", position):
        return _after_space(text, position + 1), False
    return position, True


def _next(text: str, position: int) -> tuple[int, bool]:
    """Steps over ',' or '}': where to go on, and whether the object does."""
    if (match := _separator(text, position)) is None:
        raise _not_json(text, position, "',' or '}'")
    return match.end(), match[1] == ","


def _key(text: str, position: int) -> tuple[str, int]:
    key, position = _string(text, position)
    if (match := _colon(text, position)) is None:
        raise _not_json(text, position, "':'")
    return key, match.end()


def _string(text: str, position: int) -> tuple[str, int]:
    if not text.startswith('"', position):
        raise _not_json(text, position, "a string")
    try:
        string, position = _string_at(text, position)
    except JSONDecodeError as error:
        raise HeaderError(f"the header is not JSON: {error.msg} at character {error.pos:,}") from None
    if not string.isascii() and _lone_surrogate(string):
        raise HeaderError(f"the header has half a surrogate pair, in {_quoted(string)}")
    return string, position


def _after_space(text: str, position: int) -> int:
    match = _space(text, position)
    return match.end() if match else position


def _not_json(text: str, position: int, wanted: str) -> HeaderError:
    found = _quoted(text[position : position + 20]) if position < len(text) else "the header's end"
    return HeaderError(f"the header is not JSON: at character {position:,} it needs {wanted} and has {found}")


def _metadata(text: str, position: int) -> tuple[dict[str, str], int]:
    if not text.startswith("{", position):
        raise HeaderError(f"'{_METADATA}' is {_quoted(text[position : position + 20])}, not an object")
    metadata: dict[str, str] = {}
    position, more = _opened(text, position)
    while more:
        key, position = _key(text, position)
        if not text.startswith('"', position):
            found = _quoted(text[position : position + 20])
            raise HeaderError(f"'{_METADATA}' maps {_quoted(key)} to {found}, and only strings are allowed")
        if key in metadata:
            raise HeaderError(f"'{_METADATA}' has the key {_quoted(key)} twice")
        if len(metadata) == MOST_METADATA_KEYS:
            raise HeaderError(f"'{_METADATA}' has more than the {MOST_METADATA_KEYS:,} keys that are allowed")
        metadata[key], position = _string(text, position)
        position, more = _next(text, position)
    return metadata, position


def _entry(text: str, position: int, name: str) -> tuple[_Content, int, int, int]:
    """dtype, shape and bytes; begin and end as they stand there; and where the entry ends in the text.

    A valid entry ends with the first '}' after its beginning, so no more than that is handed to the JSON decoder.
    """
    check_name(name)
    stop = text.find("}", position, position + LONGEST_ENTRY) + 1
    chunk = text[position : stop or position + LONGEST_ENTRY]
    if not chunk.startswith("{"):
        raise HeaderError(f"its entry is {_quoted(chunk[:20])}, not an object", name)
    if chunk.count("{") > 1 or chunk.count("[") > 2:
        raise HeaderError(f"its entry {_quoted(chunk)} has more brackets than shape and data_offsets need", name)
    if not stop:
        raise HeaderError(f"its entry {_quoted(chunk)} does not end within {LONGEST_ENTRY:,} characters", name)
    try:
        pairs = _pairs_of(chunk)
    except ValueError as error:
        raise HeaderError(f"its entry {_quoted(chunk)} is not JSON: {error}", name) from None
    fields = dict(pairs)
    if len(pairs) != 3 or fields.keys() != _FIELDS:
        found = ", ".join(_quoted(key, 20) for key, _ in pairs[:5]) or "nothing"
        raise HeaderError(f"its entry has {found}, and must have dtype, shape and data_offsets, each once", name)
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if type(dtype) is not str or dtype not in DTYPES:
        raise HeaderError(f"its dtype is {_quoted(dtype)}, and safetensors has no such dtype", name)
    if type(shape) is not list or not all(type(size) is int for size in shape):
        raise HeaderError(f"its shape is {_quoted(shape)}, not a list of whole numbers", name)
    if type(offsets) is not list or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        raise HeaderError(f"its data_offsets are {_quoted(offsets)}, not two whole numbers", name)
    if "-" in chunk or max(*shape, *offsets) >= _TOO_LARGE:
        raise HeaderError(f"its entry {_quoted(chunk, 120)} has a number below 0 or not below 2**63", name)
    return (dtype, tuple(shape), _byte_size(dtype, shape, name)), offsets[0], offsets[1], stop


def _byte_size(dtype: str, shape: Sequence[int], name: str) -> int:
    if len(shape) > MOST_DIMENSIONS:
        raise HeaderError(f"its shape has {len(shape)} dimensions, and at most {MOST_DIMENSIONS} are allowed", name)
    bits = DTYPES[dtype].bits
    for size in shape:
        bits *= size or 1
    if bits >= 8 * _TOO_LARGE:
        raise HeaderError(f"{dtype} of shape {_quoted(shape)} takes 2**63 bytes or more", name)
    if 0 in shape:
        return 0
    if bits % 8:
        raise HeaderError(f"{dtype} of shape {_quoted(shape)} takes {bits:,} bits, not a whole number of bytes", name)
    return bits // 8


def _placed(name: str, content: _Content, begin: int, end: int, data_start: int, data_size: int) -> TensorEntry:
    dtype, shape, size = content
    if begin > end:
        raise HeaderError(f"its data_offsets begin at {begin:,} and end before that, at {end:,}", name)
    if end > data_size:
        raise HeaderError(f"its data_offsets end at {end:,}, and the data at {data_size:,}", name)
    if end - begin != size:
        held = f"data_offsets {begin:,} to {end:,} hold {end - begin:,}"
        raise HeaderError(f"{dtype} of shape {_quoted(list(shape))} takes {amount(size, 'byte')}, and {held}", name)
    return TensorEntry(name, dtype, shape, data_start + begin, data_start + end)


def check_name(name: str) -> None:
    """Raises `HeaderError` for a tensor's name that is empty, too long, or no sound text."""
    if not name:
        raise HeaderError("a tensor's name is empty")
    if _control(name):
        raise HeaderError(f"a tensor's name has a control character, in {_quoted(name)}")
    if _lone_surrogate(name):
        raise HeaderError(f"a tensor's name has half a surrogate pair, in {_quoted(name)}")
    if (length := len(name.encode())) > LONGEST_NAME:
        what = f"a tensor's name, {_quoted(name)}, is {length:,} bytes long"
        raise HeaderError(f"{what}, and at most {LONGEST_NAME:,} are allowed")


def _named_twice(entries: Sequence[TensorEntry]) -> HeaderError:
    (name, times), *_ = Counter(entry.name for entry in entries).most_common(1)
    return HeaderError(f"the header names this tensor {'twice' if times == 2 else f'{times:,} times'}", name)


def _check_tiling(entries: Sequence[TensorEntry], data_start: int, data_size: int) -> None:
    """Every byte of the data belongs to exactly one tensor. Entries are in the order of their places."""
    reached, before = data_start, ""
    for entry in entries:
        if entry.begin > reached:
            hole = f"from {reached - data_start:,} to {entry.begin - data_start:,}"
            raise HeaderError(f"the data {hole}, just before this tensor, belong to no tensor", entry.name)
        if entry.begin < reached:
            where = f"it begins at {entry.begin - data_start:,}, inside {_quoted(before)}"
            raise HeaderError(f"{where}, which ends at {reached - data_start:,}", entry.name)
        reached, before = entry.end, entry.name
    if (ended := reached - data_start) != data_size:
        raise HeaderError(f"the tensors end at {ended:,} of the data, and the data at {data_size:,}")


def _quoted(value: object, limit: int = 60) -> str:
    text = str(value)
    if len(text) > 2 * limit:
        text = text[:limit] + text[-limit:]
    return f"'{shown(text, limit)}'"
