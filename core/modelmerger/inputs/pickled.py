"""What a file of `torch.save` holds: names, dtypes, shapes, and where each tensor lies. No number is read, and no code
runs.

torch's own restricted unpickler (`weights_only`) reads the names and shapes. Where a tensor lies is believed only if
the zip archive has an uncompressed record there.
"""

import os
import struct
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modelmerger.inputs.safetensors_header.header import HeaderError, TensorEntry
from modelmerger.inputs.safetensors_header.tensors import check_name
from modelmerger.inputs.torch_dtypes import dtype_from_torch
from modelmerger.values.text import amount, shown

if TYPE_CHECKING:
    from torch import Tensor

_ZIP = b"PK\x03\x04"
_LOCAL_HEADER = 30
"""Bytes, before the name and the extra field, whose lengths are its last two numbers."""


def read_pickled(descriptor: int, size: int) -> Mapping[str, TensorEntry]:
    """The tensors of an open file of `size` bytes, by name. Raises `HeaderError` for all that is no plain mapping."""
    if os.pread(descriptor, len(_ZIP), 0) != _ZIP:
        raise HeaderError(
            "the file is not a zip archive, as torch.save writes since version 1.6. Load it and save it again"
        )
    records = _records(descriptor)
    tensors = _unpickled(descriptor)
    if not isinstance(tensors, Mapping):
        raise HeaderError(f"the file holds {_kind(tensors)}, not a mapping of names to tensors. Save the state_dict")
    return {name: _entry(name, value, records, size) for name, value in tensors.items()}


def _unpickled(descriptor: int) -> Any:
    import torch

    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        try:
            return torch.load(file, map_location="meta", weights_only=True)
        except Exception as error:  # whatever a hostile file provokes
            reason = shown(str(error).strip().split("\n")[0].split(". ")[0], 160)
            raise HeaderError(f"torch cannot load it as weights alone ({type(error).__name__}: {reason})") from error


def _records(descriptor: int) -> dict[int, int]:
    """Offset and length of each record of the archive. None is compressed, as torch.save has it."""
    found = {}
    try:
        with open(descriptor, "rb", closefd=False) as file, zipfile.ZipFile(file) as archive:
            for record in archive.infolist():
                if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
                    raise HeaderError("its records are compressed. Load it and save it again")
                header = os.pread(descriptor, _LOCAL_HEADER, record.header_offset)
                lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
                begin = record.header_offset + _LOCAL_HEADER + lengths
                if record.filename.endswith("/byteorder") and os.pread(descriptor, 6, begin) != b"little":
                    raise HeaderError("its numbers are big endian. Load it and save it again on this machine")
                found[begin] = record.file_size
    except (
        zipfile.BadZipFile,
        ValueError,
        NotImplementedError,
        struct.error,
    ) as error:  # what zipfile raises of bad ones
        raise HeaderError(f"the file is not a sound zip archive: {shown(error)}. Is it complete?") from error
    return found


def _entry(name: Any, tensor: Any, records: Mapping[int, int], size: int) -> TensorEntry:
    if not isinstance(name, str):
        raise HeaderError(f"the file has the key {shown(repr(name))}, and tensors have texts for names")
    check_name(name)
    _check_plain(name, tensor)
    try:
        dtype = dtype_from_torch(tensor.dtype)
    except ValueError as error:
        raise HeaderError(str(error), name) from error
    length = tensor.numel() * tensor.element_size()
    if length == 0:
        return TensorEntry(name, dtype, tuple(tensor.shape), 0, 0)
    start = tensor.untyped_storage()._checkpoint_offset  # noqa: SLF001 (what torch has for it)
    begin = tensor.storage_offset() * tensor.element_size()
    held = records.get(start, 0)
    if begin + length > held or start + held > size:
        raise HeaderError(
            f"it needs bytes {begin:,} to {begin + length:,} of a record that has {amount(held, 'byte')}. "
            "Is the file complete?",
            name,
        )
    return TensorEntry(name, dtype, tuple(tensor.shape), start + begin, start + begin + length)


def _check_plain(name: str, tensor: "Tensor | Any") -> None:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise HeaderError(f"this is {_kind(tensor)}, not a tensor. Save the state_dict of the model alone", name)
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.is_quantized or tensor.layout != torch.strided:
        raise HeaderError("this is a sharded, sparse or quantised tensor. Gather or dequantise the model first", name)
    if not tensor.is_contiguous():
        raise HeaderError("it is stored transposed or with gaps. Save it again after contiguous()", name)


def _kind(value: object) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}"
