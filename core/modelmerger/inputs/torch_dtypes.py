"""The dtypes of safetensors as dtypes of torch, and the other way round."""

from typing import TYPE_CHECKING

from modelmerger.values.dtypes import BY_TORCH_NAME, find_dtype

if TYPE_CHECKING:
    import torch


def torch_dtype(name: str) -> "torch.dtype":
    """The torch dtype of "BF16" and so on. Raises `ValueError` where the installed torch has none."""
    import torch

    torch_name = find_dtype(name).torch_name
    found: torch.dtype | None = getattr(torch, torch_name, None) if torch_name else None
    if found is None:
        raise ValueError(f"torch {torch.__version__} has no dtype for {name}")
    return found


def dtype_from_torch(dtype: "torch.dtype") -> str:
    """`torch.bfloat16` → "BF16". Raises `ValueError` for a dtype that safetensors cannot store."""
    name = BY_TORCH_NAME.get(str(dtype).removeprefix("torch."))
    if name is None:
        raise ValueError(f"safetensors cannot store {dtype}; convert it to one of {', '.join(sorted(BY_TORCH_NAME))}")
    return name
