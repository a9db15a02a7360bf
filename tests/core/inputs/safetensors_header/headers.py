"""Headers for tests: made up by hypothesis, laid out, and compared with what the safetensors package says of the same bytes."""

import os
from collections.abc import Sequence
from math import prod

import safetensors
from hypothesis import strategies as st
from modelmerger import DTYPES
from modelmerger.inputs.safetensors_header.header import Header
from modelmerger.inputs.safetensors_header.reading import read_header

Listed = tuple[str, str, list[int], int, int]


def read(content: bytes) -> Header:
    """Through a file in memory, as every file is read: by position."""
    descriptor = os.memfd_create("header")
    try:
        os.write(descriptor, content)
        return read_header(descriptor, len(content))
    finally:
        os.close(descriptor)


def laid_out(tensors: Sequence[tuple[str, str, list[int]]]) -> tuple[list[Listed], int]:
    """The tensors one behind the other, and the bytes they take."""
    listed: list[Listed] = []
    position = 0
    for name, dtype, shape in tensors:
        size = prod(shape) * DTYPES[dtype].bits // 8
        listed.append((name, dtype, shape, position, position + size))
        position += size
    return listed, position


def summary(header: Header) -> dict[str, tuple[str, list[int], int, int]]:
    return {
        name: (entry.dtype, list(entry.shape), entry.begin - header.data_start, entry.end - header.data_start)
        for name, entry in header.entries.items()
    }


def assert_agrees_with_safetensors(header: Header, content: bytes) -> None:
    theirs = dict(safetensors.deserialize(content))  # type: ignore[no-untyped-call]  # safetensors has no types here
    assert theirs.keys() == header.entries.keys()
    for name, ours in header.entries.items():
        assert ours.name == name
        assert (ours.dtype, list(ours.shape)) == (theirs[name]["dtype"], theirs[name]["shape"])
        assert content[ours.begin : ours.end] == theirs[name]["data"]


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=11)
dtype_names = st.sampled_from(sorted(name for name, dtype in DTYPES.items() if dtype.bits >= 8))
tensor_lists = st.lists(
    st.tuples(names, dtype_names, st.lists(st.integers(0, 4), max_size=4)),
    max_size=6,
    unique_by=lambda tensor: tensor[0],
)
metadata = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.text(max_size=8), max_size=3
)
