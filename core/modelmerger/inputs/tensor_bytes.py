"""The memory of tensors as bytes, and which tensors have some of it in common."""

from bisect import bisect_right
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def bytes_of(vector: "Tensor") -> memoryview:
    """The memory of a contiguous tensor."""
    import torch

    return vector.view(torch.uint8).numpy().data


def extent(tensor: "Tensor") -> tuple[str, int, int]:
    """Device, and the addresses of the first byte of a strided tensor and of the one behind the last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    begin = tensor.data_ptr()
    return str(tensor.device), begin, begin + (last + 1) * tensor.element_size() * (tensor.numel() > 0)


def where(tensor: Any) -> tuple[Any, ...] | None:
    """What tells where a tensor is stored, equal for tensors that are one; None for what has no numbers in memory."""
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_meta or not tensor.numel():
        return None
    return tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


class MemoryMap:
    """Where some tensors lie. tensors: by name."""

    def __init__(self, tensors: Mapping[str, "Tensor"]) -> None:
        taken = sorted((extent(tensor), name) for name, tensor in tensors.items() if tensor.numel())
        self._names = [name for _, name in taken]
        self._begins = [(device, begin) for (device, begin, _), _ in taken]
        self._ends = [(device, end) for (device, _, end), _ in taken]

    def overlaps(self) -> list[tuple[str, str]]:
        """Names of neighbours in memory that share some of it, the one that begins first before the other."""
        return [
            (self._names[i], self._names[i + 1])
            for i in range(len(self._names) - 1)
            if self._begins[i + 1] < self._ends[i]
        ]

    def sharing(self, tensor: "Tensor") -> list[str]:
        """The names of those that share memory with a tensor, if none of them share any with each other."""
        device, begin, end = extent(tensor)
        first = bisect_right(self._ends, (device, begin))
        last = bisect_right(self._begins, (device, end - 1))
        return self._names[first:last] if end > begin else []
