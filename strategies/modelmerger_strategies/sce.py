"""SCE: select elements by variance, calculate the models' weights from their energy, erase minority signs.

    merged = θ_base + Σ eᵢ·mᵢ·τᵢ / Σ eᵢ·mᵢ,   τᵢ = θᵢ − θ_base,   element by element

Select: of a tensor, the share `density` of the elements whose variance over the models is largest; τ is 0 elsewhere.
Calculate: eᵢ = ‖τᵢ‖²/Σ ‖τⱼ‖², a number a tensor. Erase: mᵢ is 1 where the sign of τᵢ is that of Σ τⱼ (a sum of 0 counts
as positive), else 0. Wan et al. 2024, "FuseChat: Knowledge Fusion of Chat Models", https://arxiv.org/abs/2408.07990.

For fine-tunes of one base with different strengths and no weights at hand: the model that changes a tensor most counts
most there. Not where a large change is a bad one, as after a training that went wrong.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen
from modelmerger import Traits, hookimpl, must_be_between, varying

if TYPE_CHECKING:
    from torch import Tensor

traits = Traits(models=(1, None), inputs="updates", rounds=3, weights=False)

BINS = 1 << 16


@frozen(kw_only=True)
class Options:
    """Options of sce."""

    density: float = varying(default=1.0, check=must_be_between(0, 1))
    """The share of the elements with any variance that is selected; 1 takes all elements. The default is mergekit's."""


@hookimpl
def measure_tensor(
    tensors: Sequence["Tensor"], round: int, measurements: Sequence["Tensor"], options: Options
) -> "Tensor | None":
    """Histograms of the upper and of the lower half of the variances' bits, then the energy of each model.

    With density 1, the energies come at once.
    """
    import torch

    if options.density == 1:
        return _energies(tensors) if round == 0 else None
    if round == 2:
        return _energies(_selected(tensors, measurements, options))
    bits = _variance_bits(tensors)
    if round == 0:  # the first bin has the variances of 0 alone, and each other one is one further
        return torch.bincount(torch.where(bits > 0, (bits >> 16) + 1, 0), minlength=BINS)
    upper, _ = _upper(measurements[0], options)
    return torch.bincount(bits[(bits > 0) & (bits >> 16 == upper)] & (BINS - 1), minlength=BINS)


@hookimpl
def merge_tensor(tensors: Sequence["Tensor"], measurements: Sequence["Tensor"], options: Options) -> "Tensor":
    """The mean of the selected elements of the elected sign, weighted by energy; 0 where there is none."""
    import torch

    tensors = _selected(tensors, measurements, options) if options.density < 1 else tensors
    energies = measurements[-1]
    shares = (energies / energies.sum().clamp(min=torch.finfo(torch.float64).tiny)).tolist()
    positive = sum(tensors[1:], tensors[0]) >= 0
    total, weight = torch.zeros_like(tensors[0]), torch.zeros_like(tensors[0])
    for tensor, share in zip(tensors, shares, strict=True):
        elected = torch.where(positive, tensor > 0, tensor < 0)
        total += torch.where(elected, share * tensor, 0.0)
        weight += share * elected.to(weight.dtype)
    return torch.where(weight > 0, total / weight, 0.0)


def _energies(tensors: Sequence["Tensor"]) -> "Tensor":
    import torch

    return torch.stack([tensor.double().square().sum() for tensor in tensors])


def _variance_bits(tensors: Sequence["Tensor"]) -> "Tensor":
    """The variance of each element as the bits of a float32, which are in the order of the variances."""
    import torch

    count = len(tensors)
    mean = sum((tensor.double() for tensor in tensors[1:]), tensors[0].double()) / count
    squares = [(tensor.double() - mean).square() for tensor in tensors]
    return (sum(squares[1:], squares[0]) / count).float().view(torch.int32)


def _upper(counts: "Tensor", options: Options) -> tuple[int, int]:
    """The upper half of the bits of the smallest variance that is selected, and its rank among those of that half.

    (BINS, 0) where none is selected.
    """
    rank = int(round(int(counts[1:].sum()) * options.density, 6))
    return _bin_of(counts[1:], rank) if rank else (BINS, 0)


def _selected(tensors: Sequence["Tensor"], measurements: Sequence["Tensor"], options: Options) -> list["Tensor"]:
    """The tensors with 0 for all elements that are not selected. Of equal variances all are, or none."""
    import torch

    upper, rank = _upper(measurements[0], options)
    if not rank:
        return [torch.zeros_like(tensor) for tensor in tensors]
    kept = _variance_bits(tensors) >= (upper << 16 | _bin_of(measurements[1], rank)[0])
    return [torch.where(kept, tensor, 0.0) for tensor in tensors]


def _bin_of(counts: "Tensor", rank: int) -> tuple[int, int]:
    """The bin of the element of this rank (1 is the largest), and its rank inside that bin."""
    above = counts.flip(0).cumsum(0)
    place = int((above >= rank).int().argmax())
    return len(counts) - 1 - place, rank - (int(above[place - 1]) if place else 0)
