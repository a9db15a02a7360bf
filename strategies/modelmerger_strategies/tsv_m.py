"""TSV-Merge: of each model its strongest singular directions, made orthogonal to those of the others.

    τᵢ = Uᵢ·diag(σᵢ)·Vᵢᵀ, of which the first ⌊min(rows, columns)/n⌋ are kept, at least one, where there are n models
    U⊥, V⊥ = the nearest orthonormal matrices to [U₁ … Uₙ] and [V₁ … Vₙ]
    merged = θ_base + λ·U⊥·diag(w₁σ₁, …, wₙσₙ)·V⊥ᵀ,   τᵢ = θᵢ − θ_base

Gargiulo et al. 2025, "Task Singular Vectors", https://arxiv.org/abs/2412.00081, section 4.2 and algorithm 1, which has
λ = 1. Only directions above rounding count: made orthogonal, those of noise would be as loud as all others.

Use it for several fine-tunes of one base on different tasks, above all by LoRA. Do not use it where memory or time for
singular values of whole matrices is missing, nor for fine-tunes on the same task, which need no separation.
"""

from typing import TYPE_CHECKING

from attrs import frozen
from modelmerger import recalled

from modelmerger_strategies.task_vectors import spectral
from modelmerger_strategies.task_vectors.scaling import EVEN_SHARE
from modelmerger_strategies.task_vectors.spectrum import nearest_orthogonal, spectrum_of
from modelmerger_strategies.task_vectors.splitting import Factors

if TYPE_CHECKING:
    from torch import Tensor

traits = spectral.TRAITS


@frozen(kw_only=True)
class Options(spectral.Options):
    """Options of tsv_m."""


def _separated(updates: spectral.Updates, _: Options) -> "Tensor":
    import torch

    told = tuple(updates.noise), updates.size
    left, right, found = recalled("tsv_m", updates.tensors, told, lambda: _orthogonal(updates))
    values = torch.cat([own * weight for own, weight in zip(found, updates.weights, strict=True)])
    return (left * values) @ right


def _terms(updates: spectral.Updates) -> list[Factors]:
    """Of each model, its directions as they are among those of all models, whatever the weights are."""
    import torch

    left, right, found = _orthogonal(updates)
    ranks = [len(own) for own in found]
    return [
        (of_left * own, of_right.clone())
        for of_left, own, of_right in zip(torch.split(left, ranks, 1), found, torch.split(right, ranks), strict=True)
    ]


def _orthogonal(updates: spectral.Updates) -> "tuple[Tensor, Tensor, list[Tensor]]":
    """U⊥, V⊥ᵀ, and the singular values of each model."""
    import torch

    most = max(1, min(updates.shape) // len(updates.tensors))
    pairs = zip(updates.tensors, updates.noise, strict=True)
    found = [spectrum_of(tensor, noise, updates.size).first(most) for tensor, noise in pairs]
    left = nearest_orthogonal(torch.cat([one.left for one in found], 1), updates.size)
    right = nearest_orthogonal(torch.cat([one.right for one in found]), updates.size)
    return left, right, [one.values.clone() for one in found]


choose_view, find_coefficients, merge_tensor, merge_cores = spectral.hooks_of(_separated, EVEN_SHARE)
split_tensor = spectral.split_by(_terms, EVEN_SHARE)
