"""A header for a file that is to be written."""

from collections.abc import Mapping, Sequence
from json import JSONEncoder

from modelmerger.inputs.safetensors_header.header import METADATA
from modelmerger.inputs.safetensors_header.parsing import parse_header
from modelmerger.inputs.safetensors_header.tensors import check_name

DATA_STARTS = 4096
"""Bytes: data begins at a multiple of it, so that a device can read it straight into memory."""

_json = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def build_header(entries: Sequence[tuple[str, str, Sequence[int], int, int]], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON, padded with spaces to a multiple of 4,096 bytes.

    entries: (name, dtype, shape, begin, end) in the order in which they are to be listed; begin and end count from the
    first byte of data. Raises `HeaderError` for what `parse_header` would refuse, so that no such file is ever written.
    """
    members = [f'"{METADATA}":{_json(dict(metadata))}'] if metadata else []
    for name, dtype, shape, begin, end in entries:
        check_name(name)
        members.append(f"{_json(name)}:{_json({'dtype': dtype, 'shape': list(shape), 'data_offsets': [begin, end]})}")
    raw = ("{" + ",".join(members) + "}").encode("utf-8", "surrogatepass")
    raw += b" " * (-(8 + len(raw)) % DATA_STARTS)
    parse_header(raw, max((entry[4] for entry in entries), default=0))
    return len(raw).to_bytes(8, "little") + raw
