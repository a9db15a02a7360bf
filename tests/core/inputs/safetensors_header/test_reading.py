"""Headers of open files: by position, and as long as they claim to be."""

import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from modelmerger import DTYPES, HeaderError, build_header, torch_dtype
from modelmerger.inputs.safetensors_header.reading import read_header

from tests.core.inputs.safetensors_header.headers import assert_agrees_with_safetensors, laid_out, read


def test_a_file_written_by_safetensors_is_read_alike(tmp_path: Path) -> None:
    tensors = {
        f"layers.{index}.{name}": torch.arange(6).reshape(2, 3).to(torch_dtype(name))
        for index, name in enumerate(name for name, dtype in DTYPES.items() if dtype.torch_name)
    }
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 7), "مرحبا": torch.ones(3, dtype=torch.bfloat16)}
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt", "note": 'a "quoted"\nline ☃'})
    content = path.read_bytes()
    with path.open("rb") as file:
        header = read_header(file.fileno(), len(content))
        assert file.tell() == 0
    assert header.metadata == {"format": "pt", "note": 'a "quoted"\nline ☃'}
    assert_agrees_with_safetensors(header, content)
    for name, tensor in tensors.items():
        ours = header.entries[name]
        assert (torch_dtype(ours.dtype), ours.shape) == (tensor.dtype, tuple(tensor.shape))
        assert content[ours.begin : ours.end] == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def test_a_truncated_file_is_refused_at_every_length() -> None:
    listed, size = laid_out([("a", "F32", [2]), ("b", "BF16", [3])])
    content = build_header(listed, {"format": "pt"}) + bytes(size)
    for length in range(len(content)):
        with pytest.raises(HeaderError):
            read(content[:length])


def test_short_reads_are_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    content = build_header([("a", "U8", [2], 0, 2)], {"format": "pt"}) + b"ab"
    expected = read(content)
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: whole(fd, [buffers[0][:3]], offset))
    assert read(content) == expected


def test_a_file_that_became_shorter_is_refused(tmp_path: Path) -> None:
    content = build_header([("a", "U8", [2], 0, 2)], {}) + b"ab"
    path = tmp_path / "model.safetensors"
    path.write_bytes(content[:20])
    with path.open("rb") as file, pytest.raises(HeaderError, match="the file ends at byte 20, and its header at byte"):
        read_header(file.fileno(), len(content))
