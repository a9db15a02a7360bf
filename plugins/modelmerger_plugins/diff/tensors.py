"""How far tensors of two models are from each other, in pieces that fit into a cache."""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from attrs import frozen
from modelmerger import Checkpoint, TensorInfo, read_elements

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1 << 20
"""Elements that are compared at a time."""
WORKERS = 2


@frozen
class Difference:
    """Of one tensor that both models have in the same shape."""

    name: str
    """That of the tensor."""
    elements: int
    """How many numbers it holds."""
    changed: int
    """How many of them differ."""
    moved: float
    """Σ (b − a)² over its elements, in float64."""
    length: float
    """Σ a²."""
    other_length: float
    """Σ b²."""
    product: float
    """Σ a·b."""
    largest: float
    """The largest |b − a|; NaN where a number is one."""
    dtypes: tuple[str, str]
    """As safetensors spells them, in A and in B."""

    @property
    def relative(self) -> float | None:
        """‖b − a‖ / ‖a‖; None where a is zero and b is not."""
        return relative(self.moved, self.length)


def relative(moved: float, length: float) -> float | None:
    """‖b − a‖ / ‖a‖ of sums of squares; None where there is no such number."""
    if not moved:
        return 0.0
    found = math.sqrt(moved / length) if length else math.inf
    return found if math.isfinite(found) else None


def differences(
    a: Checkpoint, b: Checkpoint, both: Mapping[str, TensorInfo], advance: Callable[[int], None]
) -> Iterator[Difference]:
    """Of the tensors of these names, in their order. advance: called with the bytes that were read."""
    from modelmerger import one_thread_each

    with one_thread_each(), ThreadPoolExecutor(WORKERS) as workers:
        yield from workers.map(lambda name: _difference(a, b, name, advance), both)


def _difference(a: Checkpoint, b: Checkpoint, name: str, advance: Callable[[int], None]) -> Difference:
    import torch

    elements = a.tensors[name].elements
    sums = torch.zeros(4, dtype=torch.float64)
    changed, largest = 0, 0.0
    for start in range(0, elements, PIECE):
        stop = min(elements, start + PIECE)
        x, y = (read_elements(model, name, start, stop) for model in (a, b))
        advance(x.nbytes + y.nbytes)
        same_bits = x.dtype == y.dtype and torch.equal(x.view(torch.uint8), y.view(torch.uint8))
        x = _wide(x)
        y = x if same_bits else _wide(y)
        sums += torch.stack([_zero() if same_bits else _square(y - x), _square(x), _square(y), (x * y).sum()])
        if not same_bits:
            apart = (y - x).abs()
            changed += int((x != y).sum())
            largest = float(torch.maximum(torch.tensor(largest, dtype=torch.float64), apart.max()))
    moved, length, other_length, product = sums.tolist()
    dtypes = a.tensors[name].dtype, b.tensors[name].dtype
    return Difference(name, elements, changed, moved, length, other_length, product, largest, dtypes)


def _wide(values: "Tensor") -> "Tensor":
    import torch

    return values.abs().to(torch.float64) if values.is_complex() else values.to(torch.float64)


def _square(values: "Tensor") -> "Tensor":
    return (values * values).sum()


def _zero() -> "Tensor":
    import torch

    return torch.zeros((), dtype=torch.float64)
