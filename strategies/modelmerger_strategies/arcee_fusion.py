"""Arcee Fusion: takes the elements of a fine-tune that changed exceptionally much, and leaves the base for all others.

    merged = θ where s ≥ Q₂ + 1.5·(Q₃ − Q₁), else θ_base,   s = |θ − θ_base| · KL(p ‖ q)

p and q are the softmax of the element's row (the last dimension) in θ and in θ_base, plus 1e-8 each. Q₁, Q₂ and Q₃ are
the quartiles of s over the tensor: the numbers at ⌊k·(n − 1)/4⌋ in order, without sampling. The rule for outliers is
after Tukey 1977, "Exploratory data analysis", chapter 2. There is no paper: the formula is that of Arcee's mergekit,
https://github.com/arcee-ai/mergekit.

For one fine-tune whose few large changes should be kept and its noise left out. Not for one that changes all elements
by about as much: hardly any is an outlier then, and hardly anything of it is left.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelmerger import Traits, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

traits = Traits(models=(1, 1), needs_base=True, granularity="rowwise", rounds=2, weights=False)

BINS = 1 << 16
EPSILON = 1e-8


@hookimpl
def measure_tensor(tensors: Sequence["Tensor"], round: int, measurements: Sequence["Tensor"]) -> "Tensor":
    """Histograms of the bits of s as float32: of the upper half, then of the lower half for each quartile's upper."""
    import torch

    bits = _bits(tensors).flatten()
    if round == 0:
        return torch.bincount(bits >> 16, minlength=BINS)
    return torch.stack(
        [
            torch.bincount(bits[bits >> 16 == upper] & (BINS - 1), minlength=BINS)
            for upper, _ in _uppers(measurements[0])
        ]
    )


@hookimpl
def merge_tensor(tensors: Sequence["Tensor"], measurements: Sequence["Tensor"]) -> "Tensor":
    """The elements of the model at or above the threshold, those of the base elsewhere."""
    import torch

    found = [
        upper << 16 | _bin_of(counts, rank)[0]
        for (upper, rank), counts in zip(_uppers(measurements[0]), measurements[1], strict=True)
    ]
    first, median, third = torch.tensor(found, dtype=torch.int32).view(torch.float32).tolist()
    important = _bits(tensors).view(torch.float32).double() >= median + 1.5 * (third - first)
    return torch.where(important, tensors[0], tensors[1])


def _bits(tensors: Sequence["Tensor"]) -> "Tensor":
    """The numbers s as the bits of float32 numbers, which have the same order: int32, of the shape of the slice."""
    import torch

    model, base = (tensor.double() for tensor in tensors)
    p, q = (torch.softmax(rows, dim=-1) + EPSILON for rows in (model, base))
    divergence = (p * (p / q).log()).sum(dim=-1, keepdim=True).clamp(min=0)
    return ((model - base).abs() * divergence).float().view(torch.int32)


def _uppers(counts: "Tensor") -> list[tuple[int, int]]:
    """The upper half of the bits of each quartile, and its rank from 0 among the numbers of that half."""
    last = int(counts.sum()) - 1
    return [_bin_of(counts, quarter * last // 4) for quarter in (1, 2, 3)]


def _bin_of(counts: "Tensor", rank: int) -> tuple[int, int]:
    """The bin of the number of this rank (0 is the smallest), and its rank inside that bin."""
    below = counts.cumsum(0)
    place = int((below > rank).int().argmax())
    return place, rank - (int(below[place - 1]) if place else 0)
