"""Headers that are built, read back by this parser and by the safetensors package."""

import json
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from modelmerger import HeaderError
from modelmerger.inputs.safetensors_header.building import build_header

from tests.core.inputs.safetensors_header.headers import (
    Listed,
    assert_agrees_with_safetensors,
    laid_out,
    metadata,
    read,
    summary,
    tensor_lists,
)


def test_a_built_header_with_its_data_is_loaded_by_safetensors(tmp_path: Path) -> None:
    values = {
        "b": torch.tensor([[1.5, -0.0], [3.0, 4.0]], dtype=torch.bfloat16),
        "طبقة.weight": torch.tensor(7, dtype=torch.int64),
        "empty": torch.zeros(0, 3),
        "a": torch.tensor([True, False, True]),
    }
    names_of = {torch.bfloat16: "BF16", torch.int64: "I64", torch.float32: "F32", torch.bool: "BOOL"}
    listed, _ = laid_out([(name, names_of[value.dtype], list(value.shape)) for name, value in values.items()])
    header = build_header(listed, {"format": "pt"})
    data = b"".join(value.reshape(-1).view(torch.uint8).numpy().tobytes() for value in values.values())
    path = tmp_path / "model.safetensors"
    path.write_bytes(header + data)
    loaded = safetensors.torch.load_file(path)
    assert loaded.keys() == values.keys()
    for name, value in values.items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value)
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}


@settings(database=None, deadline=None)
@given(tensor_lists, metadata)
def test_a_built_header_is_aligned_in_the_order_given_and_read_back(
    tensors: list[tuple[str, str, list[int]]], extra: dict[str, str]
) -> None:
    listed, size = laid_out(tensors)
    built = build_header(listed, extra)
    assert len(built) % 4096 == 0
    assert int.from_bytes(built[:8], "little") == len(built) - 8
    assert [name for name in json.loads(built[8:]) if name != "__metadata__"] == [name for name, *_ in listed]
    content = built + bytes(size)
    header = read(content)
    assert summary(header) == {name: (dtype, shape, begin, end) for name, dtype, shape, begin, end in listed}
    assert (header.metadata, header.data_start) == (extra, len(built))
    assert_agrees_with_safetensors(header, content)
    assert build_header(listed, extra) == built


def test_padding_is_of_spaces_and_metadata_come_first() -> None:
    built = build_header([("a", "U8", (2,), 0, 2)], {"k": "v"})
    text = '{"__metadata__":{"k":"v"},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
    assert built[8:].decode() == text + " " * (4088 - len(text))
    assert build_header([], {}) == b"\xf8\x0f\0\0\0\0\0\0{}" + b" " * 4086


@pytest.mark.parametrize(
    ("listed", "extra", "reason"),
    [
        ([("a", "U8", [1], 0, 1), ("a", "U8", [1], 1, 2)], {}, "names this tensor twice"),
        ([("a", "U8", [1], 1, 2)], {}, "belong to no tensor"),
        ([("a", "U8", [2], 0, 1)], {}, "takes 2 bytes"),
        ([("a", "uint8", [1], 0, 1)], {}, "its dtype is 'uint8'"),
        ([("", "U8", [1], 0, 1)], {}, "empty"),
        ([("\ud800", "U8", [1], 0, 1)], {}, "half a surrogate pair"),
        ([("__metadata__", "U8", [1], 0, 1)], {}, "only strings are allowed"),
        ([("__metadata__", "U8", [1], 0, 1)], {"k": "v"}, "has '__metadata__' twice"),
        ([], {"k": "\ud800"}, "not UTF-8"),
    ],
)
def test_a_header_that_would_be_refused_is_not_built(listed: list[Listed], extra: dict[str, str], reason: str) -> None:
    with pytest.raises(HeaderError, match=reason):
        build_header(listed, extra)
