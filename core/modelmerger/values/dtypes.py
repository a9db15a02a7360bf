"""Element types as safetensors names them: width, family, largest finite value, and their names in torch."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from attrs import frozen

from modelmerger.values.text import suggestion

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

BY_TORCH_NAME = MappingProxyType({dtype.torch_name: name for name, dtype in DTYPES.items() if dtype.torch_name})
"""The attribute of torch → the name of the dtype, for those that torch has."""
_ALIASES = {"half": "float16", "float": "float32", "double": "float64"}


def dtype_from_config(name: str) -> str:
    """A dtype as configs spell it: "bfloat16", "torch.bfloat16" → "BF16". Raises `ValueError` for another word."""
    bare = name.removeprefix("torch.")
    found = BY_TORCH_NAME.get(_ALIASES.get(bare, bare))
    if found is None:
        raise ValueError(
            f"no dtype is named '{name}'{suggestion(bare, BY_TORCH_NAME) or ' (bfloat16, float16, float32, …)'}"
        )
    return found


def max_finite(name: str) -> float:
    """The largest finite value of a float dtype. Raises `ValueError` for the other families, which have none."""
    largest = find_dtype(name).largest
    if largest is None:
        raise ValueError(f"{name} is not a floating dtype, so it has no largest finite value")
    return largest


def find_dtype(name: str) -> DType:
    """The dtype of this name. Raises `ValueError` where the format has none, with the nearest."""
    if name not in DTYPES:
        raise ValueError(f"safetensors has no dtype '{name}'{suggestion(name, DTYPES)}")
    return DTYPES[name]
