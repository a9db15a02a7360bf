"""The table of dtypes against torch and the safetensors package."""

import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import torch
from modelmerger.values.dtypes import DTYPES, dtype_from_config, find_dtype, max_finite

FLOATS = [name for name, dtype in DTYPES.items() if dtype.family == "float"]


def deserialized(dtype: str, elements: int, size: int) -> str:
    """The dtype that safetensors reads from a file with one vector of this dtype."""
    header = f'{{"a":{{"dtype":"{dtype}","shape":[{elements}],"data_offsets":[0,{size}]}}}}'.encode()
    content = len(header).to_bytes(8, "little") + header + bytes(size)
    return str(safetensors.deserialize(content)[0][1]["dtype"])  # type: ignore[no-untyped-call]  # safetensors has no types here


def test_safetensors_knows_exactly_these_dtypes() -> None:
    with pytest.raises(safetensors.SafetensorError, match="expected one of") as error:
        deserialized("NONE", 8, 8)
    listed = str(error.value).split("expected one of")[1]
    assert set(listed.split("`")[1::2]) == set(DTYPES)


@pytest.mark.parametrize("name", DTYPES)
def test_safetensors_counts_the_same_bits(name: str) -> None:
    bits = DTYPES[name].bits
    assert deserialized(name, 8, bits) == name
    with pytest.raises(safetensors.SafetensorError):
        deserialized(name, 8, bits + 1)


@pytest.mark.parametrize("name", FLOATS)
def test_largest_finite_value_is_that_of_torch(name: str) -> None:
    dtype = getattr(torch, str(DTYPES[name].torch_name))
    assert max_finite(name) == torch.finfo(dtype).max
    assert torch.tensor(max_finite(name), dtype=torch.float64).to(dtype).double().item() == max_finite(name)


@pytest.mark.parametrize("name", sorted(set(DTYPES) - set(FLOATS)))
def test_other_families_have_no_largest_finite_value(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is not a floating dtype"):
        max_finite(name)


@pytest.mark.parametrize(("name", "bits"), [("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6)])
def test_elements_of_less_than_a_byte_have_bits_and_no_item_size(name: str, bits: int) -> None:
    assert (DTYPES[name].bits, DTYPES[name].family) == (bits, "packed")
    with pytest.raises(ValueError, match=f"{bits} bits"):
        _ = DTYPES[name].itemsize


def test_block_scales_are_not_floats_to_be_merged() -> None:
    assert DTYPES["F8_E8M0"].family == "packed"


@pytest.mark.parametrize(
    ("word", "name"),
    [("half", "F16"), ("torch.half", "F16"), ("float", "F32"), ("double", "F64"), ("bfloat16", "BF16")],
)
def test_configs_may_use_the_short_words_of_torch(word: str, name: str) -> None:
    assert dtype_from_config(word) == name


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("bf16", "no dtype is named 'bf16', did you mean 'bfloat16'?"),
        ("torch.float23", "no dtype is named 'torch.float23', did you mean 'float32'?"),
        ("BF16", "no dtype is named 'BF16' (bfloat16, float16, float32, …)"),
        ("auto", "no dtype is named 'auto'"),
        ("", "no dtype is named ''"),
        ("Tensor", "no dtype is named 'Tensor'"),
    ],
)
def test_an_unknown_word_is_an_error_that_helps(word: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        dtype_from_config(word)
    assert str(error.value).startswith(message)


def test_an_unknown_name_is_an_error_that_helps() -> None:
    with pytest.raises(ValueError, match=r"safetensors has no dtype 'BF61', did you mean 'BF16'\?$"):
        find_dtype("BF61")


@pytest.mark.parametrize("module", ["modelmerger.values.dtypes", "modelmerger.inputs.safetensors_header.reading"])
def test_nothing_heavy_is_imported(module: str) -> None:
    core = str(Path(sys.modules["modelmerger.values.dtypes"].__file__ or "").parents[2])
    code = (
        f"import sys; sys.path.insert(0, {core!r}); import {module}; "
        "print(sorted({'torch', 'numpy', 'safetensors', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
