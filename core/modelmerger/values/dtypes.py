"""Element types as safetensors names them: width, family, largest finite value, and their names in torch."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from modelmerger.values.text import suggestion

if TYPE_CHECKING:
    import torch

Family = Literal["float", "integer", "bool", "complex", "packed"]
""""packed" is what means nothing without the block scales stored beside it: elements of less than a byte, and those
scales themselves (F8_E8M0: no sign, no zero)."""


@frozen
class DType:
    """An element type of the safetensors format, version 0.8."""

    name: str
    """As in a header ("BF16")."""
    bits: int
    """Width of one element."""
    family: Family
    """What its bits mean."""
    torch_name: str | None
    """The attribute of torch; None where torch has no such type (or counts its elements otherwise: F4)."""
    largest: float | None = None
    """The largest finite value of a float, else None."""

    @property
    def itemsize(self) -> int:
        """Bytes of one element. Raises `ValueError` for elements of less than a byte: count those in `bits`."""
        if self.bits % 8:
            raise ValueError(f"an element of {self.name} takes {self.bits} bits, not whole bytes")
        return self.bits // 8


DTYPES: Mapping[str, DType] = MappingProxyType(
    {
        dtype.name: dtype
        for dtype in (
            DType("F64", 64, "float", "float64", (2 - 2**-52) * 2.0**1023),
            DType("F32", 32, "float", "float32", (2 - 2**-23) * 2.0**127),
            DType("F16", 16, "float", "float16", 65504.0),
            DType("BF16", 16, "float", "bfloat16", (2 - 2**-7) * 2.0**127),
            DType("F8_E4M3", 8, "float", "float8_e4m3fn", 448.0),
            DType("F8_E4M3FNUZ", 8, "float", "float8_e4m3fnuz", 240.0),
            DType("F8_E5M2", 8, "float", "float8_e5m2", 57344.0),
            DType("F8_E5M2FNUZ", 8, "float", "float8_e5m2fnuz", 57344.0),
            DType("F8_E8M0", 8, "packed", "float8_e8m0fnu"),
            DType("F6_E2M3", 6, "packed", None),
            DType("F6_E3M2", 6, "packed", None),
            DType("F4", 4, "packed", None),
            DType("I64", 64, "integer", "int64"),
            DType("I32", 32, "integer", "int32"),
            DType("I16", 16, "integer", "int16"),
            DType("I8", 8, "integer", "int8"),
            DType("U64", 64, "integer", "uint64"),
            DType("U32", 32, "integer", "uint32"),
            DType("U16", 16, "integer", "uint16"),
            DType("U8", 8, "integer", "uint8"),
            DType("BOOL", 8, "bool", "bool"),
            DType("C64", 64, "complex", "complex64"),
        )
    }
)
"""Every dtype of the format, by name. A name that is not here is not one."""

_FROM_TORCH = {dtype.torch_name: name for name, dtype in DTYPES.items() if dtype.torch_name}
_ALIASES = {"half": "float16", "float": "float32", "double": "float64"}


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of "BF16" and so on. Raises `ValueError` where the installed torch has none."""
    import torch

    torch_name = _known(name).torch_name
    found: torch.dtype | None = getattr(torch, torch_name, None) if torch_name else None
    if found is None:
        raise ValueError(f"torch {torch.__version__} has no dtype for {name}")
    return found


def from_torch(dtype: torch.dtype) -> str:
    """`torch.bfloat16` → "BF16". Raises `ValueError` for a dtype that safetensors cannot store."""
    name = _FROM_TORCH.get(str(dtype).removeprefix("torch."))
    if name is None:
        raise ValueError(f"safetensors cannot store {dtype}; convert it to one of {', '.join(sorted(_FROM_TORCH))}")
    return name


def from_config_name(name: str) -> str:
    """A dtype as configs spell it: "bfloat16", "torch.bfloat16" → "BF16". Raises `ValueError` for another word."""
    bare = name.removeprefix("torch.")
    found = _FROM_TORCH.get(_ALIASES.get(bare, bare))
    if found is None:
        raise ValueError(
            f"no dtype is named '{name}'{suggestion(bare, _FROM_TORCH) or ' (bfloat16, float16, float32, …)'}"
        )
    return found


def max_finite(name: str) -> float:
    """The largest finite value of a float dtype. Raises `ValueError` for the other families, which have none."""
    largest = _known(name).largest
    if largest is None:
        raise ValueError(f"{name} is not a floating dtype, so it has no largest finite value")
    return largest


def _known(name: str) -> DType:
    if name not in DTYPES:
        raise ValueError(f"safetensors has no dtype '{name}'{suggestion(name, DTYPES)}")
    return DTYPES[name]
