"""Dtypes of safetensors as torch has them, and back."""

import pytest
import torch
from modelmerger.inputs.torch_dtypes import dtype_from_torch, torch_dtype
from modelmerger.values.dtypes import DTYPES, dtype_from_config

IN_TORCH = [name for name, dtype in DTYPES.items() if dtype.torch_name]


@pytest.mark.parametrize("name", IN_TORCH)
def test_torch_agrees_on_size_and_family(name: str) -> None:
    dtype = torch_dtype(name)
    assert dtype.itemsize == DTYPES[name].itemsize
    family = DTYPES[name].family
    assert dtype.is_complex == (family == "complex")
    assert dtype.is_floating_point == (family == "float" or name == "F8_E8M0")
    assert (dtype == torch.bool) == (family == "bool")


@pytest.mark.parametrize("name", IN_TORCH)
def test_names_go_to_torch_and_back(name: str) -> None:
    dtype = torch_dtype(name)
    assert dtype_from_torch(dtype) == name
    assert dtype_from_config(str(dtype)) == name
    assert dtype_from_config(str(dtype).removeprefix("torch.")) == name


@pytest.mark.parametrize("name", ["F4", "F6_E2M3", "F6_E3M2"])
def test_elements_of_less_than_a_byte_are_nothing_to_torch(name: str) -> None:
    with pytest.raises(ValueError, match=f"has no dtype for {name}"):
        torch_dtype(name)


@pytest.mark.parametrize(("word", "name"), [("half", "F16"), ("float", "F32"), ("double", "F64")])
def test_torch_has_other_words_for_some(word: str, name: str) -> None:
    assert dtype_from_torch(getattr(torch, word)) == name


def test_an_unknown_name_is_an_error_that_helps() -> None:
    with pytest.raises(ValueError, match=r"safetensors has no dtype 'BF61', did you mean 'BF16'\?$"):
        torch_dtype("BF61")
    with pytest.raises(ValueError, match=r"safetensors cannot store torch\.complex128; convert it"):
        dtype_from_torch(torch.complex128)


def test_an_older_torch_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "float8_e8m0fnu")
    monkeypatch.setattr(torch, "__version__", "2.6.0")
    with pytest.raises(ValueError, match=r"torch 2\.6\.0 has no dtype for F8_E8M0"):
        torch_dtype("F8_E8M0")
