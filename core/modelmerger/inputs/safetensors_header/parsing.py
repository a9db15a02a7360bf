"""From the JSON of a header to what it says, in time and memory that are in proportion to it."""

import re
from json import JSONDecoder
from operator import attrgetter
from types import MappingProxyType

from modelmerger.inputs.safetensors_header.header import METADATA, Header, HeaderError, TensorEntry, quoted
from modelmerger.inputs.safetensors_header.scanning import first_key, key, next_key, string
from modelmerger.inputs.safetensors_header.tensors import (
    LONGEST_NAME,
    TOO_LARGE,
    Content,
    byte_size,
    check_name,
    check_tiling,
    located,
    named_twice,
)
from modelmerger.values.dtypes import DTYPES

MOST_HEADER_BYTES = 100_000_000
"""As many as the safetensors package reads."""
MOST_TENSORS = 1_000_000
"""Several times as many as the largest mixtures of experts have, quantised and in one file."""
MOST_UNUSUAL = 250_000
"""Of the tensors, those whose entry must be read by itself, at four times the cost: it is spelled in another way than
safetensors spells it, or no entry before it has its dtype and shape."""
MOST_METADATA_KEYS = 10_000
"""More than anybody writes."""
LONGEST_ENTRY = 4096
"""Characters of one tensor's entry. 32 dimensions of twenty digits, each on an indented line, take a third of it."""

_FIELDS = {"dtype", "shape", "data_offsets"}
_usual_entry = re.compile(
    rf'"((?!{METADATA}")[ !#-\[\]-~]{{1,{LONGEST_NAME}}}+)": ?\{{([^}}\]]*+\]), ?'
    r'"data_offsets": ?\[(0|[1-9][0-9]{0,17}+), ?(0|[1-9][0-9]{0,17}+)\]\}[ \t\n\r]*([,}])[ \t\n\r]*'
).match
_pairs_of = JSONDecoder(object_pairs_hook=lambda pairs: pairs).decode


def check_length(length: int) -> None:
    """Raises `HeaderError` for a header of more bytes than are allowed."""
    if length > MOST_HEADER_BYTES:
        raise HeaderError(f"the header claims {length:,} bytes, and at most {MOST_HEADER_BYTES:,} are allowed")


def parse_header(raw: bytes | bytearray, data_size: int) -> Header:
    """The header whose JSON is `raw` (what follows the eight bytes of its length), with `data_size` bytes of data
    behind it.

    Takes time and memory in proportion to `raw`, whatever is in it. Raises `HeaderError` for all that is not exactly
    the format: https://github.com/huggingface/safetensors#format.
    """
    check_length(len(raw))
    text = _decoded(raw)
    if text.count('"data_offsets"') > MOST_TENSORS:
        raise _too_many()
    data_start = 8 + len(raw)
    entries: list[TensorEntry] = []
    metadata: dict[str, str] | None = None
    seen: dict[str, Content] = {}
    unusual = 0
    position, more = first_key(text, 0)
    while more:
        if len(entries) > MOST_TENSORS:  # some spelled with escapes, or they were counted before
            raise _too_many()
        if (usual := _usual_entry(text, position)) and (known := seen.get(usual[2])):
            entries.append(located(usual[1], known, int(usual[3]), int(usual[4]), data_start, data_size))
            position, more = usual.end(), usual[5] == ","
            continue
        name, position = key(text, position)
        if name != METADATA:
            unusual += 1
            if unusual > MOST_UNUSUAL:
                most = f"at most {MOST_UNUSUAL:,} tensors may be"
                raise HeaderError(
                    f"{most} spelled in another way than safetensors spells them, or each of another shape"
                )
            content, begin, end, position = _entry(text, position, name)
            entries.append(located(name, content, begin, end, data_start, data_size))
            if usual:
                seen[usual[2]] = content
        elif metadata is None:
            metadata, position = _metadata(text, position)
        else:
            raise HeaderError(f"the header has '{METADATA}' twice")
        position, more = next_key(text, position)
    if position != len(text):
        raise HeaderError(f"the header goes on after its end, with {quoted(text[position : position + 20])}")
    entries.sort(key=attrgetter("begin", "end"))
    by_name = {entry.name: entry for entry in entries}
    if len(by_name) != len(entries):
        raise named_twice(entries)
    check_tiling(entries, data_start, data_size)
    return Header(MappingProxyType(by_name), MappingProxyType(metadata or {}), data_start)


def _too_many() -> HeaderError:
    return HeaderError(f"the header has more than the {MOST_TENSORS:,} tensors that are allowed")


def _decoded(raw: bytes | bytearray) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise HeaderError(f"the header is not UTF-8: {error.reason} at byte {8 + error.start:,} of the file") from None
    if not text.startswith("{"):
        raise HeaderError(f"the header begins with {quoted(text[:20])}, and must begin with '{{'")
    return text


def _metadata(text: str, position: int) -> tuple[dict[str, str], int]:
    if not text.startswith("{", position):
        raise HeaderError(f"'{METADATA}' is {quoted(text[position : position + 20])}, not an object")
    metadata: dict[str, str] = {}
    position, more = first_key(text, position)
    while more:
        name, position = key(text, position)
        if not text.startswith('"', position):
            found = quoted(text[position : position + 20])
            raise HeaderError(f"'{METADATA}' maps {quoted(name)} to {found}, and only strings are allowed")
        if name in metadata:
            raise HeaderError(f"'{METADATA}' has the key {quoted(name)} twice")
        if len(metadata) == MOST_METADATA_KEYS:
            raise HeaderError(f"'{METADATA}' has more than the {MOST_METADATA_KEYS:,} keys that are allowed")
        metadata[name], position = string(text, position)
        position, more = next_key(text, position)
    return metadata, position


def _entry(text: str, position: int, name: str) -> tuple[Content, int, int, int]:
    """dtype, shape and bytes; begin and end as they stand there; and where the entry ends in the text.

    A valid entry ends with the first '}' after its beginning, so no more than that is handed to the JSON decoder.
    """
    check_name(name)
    stop = text.find("}", position, position + LONGEST_ENTRY) + 1
    chunk = text[position : stop or position + LONGEST_ENTRY]
    if not chunk.startswith("{"):
        raise HeaderError(f"its entry is {quoted(chunk[:20])}, not an object", name)
    if chunk.count("{") > 1 or chunk.count("[") > 2:
        raise HeaderError(f"its entry {quoted(chunk)} has more brackets than shape and data_offsets need", name)
    if not stop:
        raise HeaderError(f"its entry {quoted(chunk)} does not end within {LONGEST_ENTRY:,} characters", name)
    try:
        pairs = _pairs_of(chunk)
    except ValueError as error:
        raise HeaderError(f"its entry {quoted(chunk)} is not JSON: {error}", name) from None
    fields = dict(pairs)
    if len(pairs) != 3 or fields.keys() != _FIELDS:
        found = ", ".join(quoted(field, 20) for field, _ in pairs[:5]) or "nothing"
        raise HeaderError(f"its entry has {found}, and must have dtype, shape and data_offsets, each once", name)
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if type(dtype) is not str or dtype not in DTYPES:
        raise HeaderError(f"its dtype is {quoted(dtype)}, and safetensors has no such dtype", name)
    if type(shape) is not list or not all(type(size) is int for size in shape):
        raise HeaderError(f"its shape is {quoted(shape)}, not a list of whole numbers", name)
    if type(offsets) is not list or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        raise HeaderError(f"its data_offsets are {quoted(offsets)}, not two whole numbers", name)
    if "-" in chunk or max(*shape, *offsets) >= TOO_LARGE:
        raise HeaderError(f"its entry {quoted(chunk, 120)} has a number below 0 or not below 2**63", name)
    return (dtype, tuple(shape), byte_size(dtype, shape, name)), offsets[0], offsets[1], stop
