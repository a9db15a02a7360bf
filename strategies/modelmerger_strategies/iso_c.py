"""Isotropic merging in the common subspace: the sum of all changes, as strong in every direction that it has.

    Σ wᵢτᵢ = U·diag(σ)·Vᵀ, of rank r,   τᵢ = θᵢ − θ_base
    merged = θ_base + λ·σ̄·U·Vᵀ,   σ̄ = (σ₁ + … + σᵣ)/r

Marczak et al. 2025, "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces",
https://arxiv.org/abs/2502.04959, section 4.1 and algorithm 1. Only directions above rounding count: those of noise
would become as strong as all others.

Use it for many fine-tunes of one base, of which a few would drown the others. Do not use it for one model alone, nor
where the strong directions are the ones that matter: they are weakened.
"""

from typing import TYPE_CHECKING

from attrs import frozen

from modelmerger_strategies.task_vectors import spectral
from modelmerger_strategies.task_vectors.scaling import EVEN_SHARE

if TYPE_CHECKING:
    from torch import Tensor

traits = spectral.TRAITS


@frozen(kw_only=True)
class Options(spectral.Options):
    """Options of iso_c."""


def _isotropic(updates: spectral.Updates, _: Options) -> "Tensor":
    found = updates.spectrum
    return (found.left @ found.right).mul_(found.values.mean())


choose_view, find_coefficients, merge_tensor, merge_cores = spectral.hooks_of(_isotropic, EVEN_SHARE)
