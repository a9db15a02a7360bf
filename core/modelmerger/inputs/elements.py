"""Elements of a checkpoint's tensors as vectors of torch."""

from typing import TYPE_CHECKING

from modelmerger.inputs.torch_dtypes import torch_dtype
from modelmerger.values.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor


def read_elements(checkpoint: Checkpoint, tensor: str, start: int, stop: int) -> "Tensor":
    """Elements `start` to `stop` of a flattened tensor as a vector of the stored dtype, in memory of its own.

    Raises `ValueError` where torch has no such dtype, and what `Checkpoint.read` raises.
    """
    import torch

    info = checkpoint.tensors[tensor]
    raw = torch.empty(info.span(start, stop)[1], dtype=torch.uint8)
    checkpoint.read(tensor, start, stop, raw.numpy().data)
    return raw.view(torch_dtype(info.dtype))
