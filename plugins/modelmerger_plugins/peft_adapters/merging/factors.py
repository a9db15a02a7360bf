"""Sums of low-rank matrices in their factors, in float64: exact, best at a rank, or as PEFT adds them.

The matrices themselves never exist.
"""

import math
from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

REDUNDANT = 2.0**-40
"""A singular value below this share of the factors' norms is rounding noise of the sum, 2⁻⁵² for each addition."""


@frozen(eq=False)
class Pair:
    """One update in its factors: coefficient · left · right. All in float64."""

    coefficient: float
    """What the product is multiplied by."""
    left: Tensor
    """(rows, r)."""
    right: Tensor
    """(r, columns)."""


@frozen(eq=False)
class Product:
    """left · right, what a sum became. All in float64."""

    left: Tensor
    """(rows, r)."""
    right: Tensor
    """(r, columns)."""
    missing: Sequence[tuple[Tensor, Tensor]]
    """What the sum has and the product has not, as pairs of factors that add up to it."""
    norm: float
    """The Frobenius norm of the sum."""

    def relative_error(self, dtype: torch.dtype) -> float:
        """‖written − sum‖/‖sum‖, where the factors are written in `dtype`; 0 for a sum that is zero."""
        left, right = self.left.to(dtype).double(), self.right.to(dtype).double()
        rounded = [(self.left - left, right), (self.left, self.right - right)]
        lefts, rights = zip(*self.missing, *rounded, strict=True)
        error = _norm(torch.cat(lefts, 1), torch.cat(rights))
        return error / self.norm if self.norm else 0.0


def best(pairs: Sequence[Pair], most: int | None = None, exactly: int | None = None) -> Product:
    """The sum without redundant directions; or its best approximation of rank `most`, if it has more, or `exactly`.

    Eckart and Young 1936, https://doi.org/10.1007/BF02288367: the largest singular values, here of the small matrix
    between the orthogonal factors of the stacked ones. The rank is at least one; the factors of a zero sum are zero.
    """
    left, right = stacked(pairs)
    rows, inner_left = torch.linalg.qr(left)
    columns, inner_right = torch.linalg.qr(right.T)
    u, values, v = torch.linalg.svd(inner_left @ inner_right.T, full_matrices=False)
    least = REDUNDANT * float(left.norm() * right.norm())
    there = int((values > least).sum())
    rank = exactly or max(1, min(there, most or there))
    roots = values[:rank].where(values[:rank] > least, 0).sqrt()
    missing = (rows @ (u[:, rank:there] * values[rank:there]), v[rank:there] @ columns.T)
    return Product(
        rows @ (u[:, :rank] * roots), roots[:, None] * (v[:rank] @ columns.T), [missing], float(values[:there].norm())
    )


def as_peft_does(pairs: Sequence[Pair]) -> Product:
    """What PEFT's `add_weighted_adapter(combination_type="linear")` makes of them.

    Left and right factors are added up, each times √|c|; their product is not the sum of the products. All pairs have
    one rank.
    """
    roots = [math.sqrt(abs(pair.coefficient)) for pair in pairs]
    signs = [math.copysign(root, pair.coefficient) for root, pair in zip(roots, pairs, strict=True)]
    left, right = torch.zeros_like(pairs[0].left), torch.zeros_like(pairs[0].right)
    for pair, root, sign in zip(pairs, roots, signs, strict=True):
        left += root * pair.left
        right += sign * pair.right
    exact = stacked(pairs)
    return Product(left, right, [exact, (-left, right)], _norm(*exact))


def inner_product(ours: Sequence[Pair], theirs: Sequence[Pair]) -> float:
    """⟨Σ c·left·right, Σ c·left·right⟩ = tr((L₁ᵀL₂)(R₂R₁ᵀ))."""
    if not ours or not theirs:
        return 0.0
    (left, right), (other_left, other_right) = stacked(ours), stacked(theirs)
    return float(((left.T @ other_left) * (right @ other_right.T)).sum())


def stacked(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """The two factors whose product is the sum.

    Those of a pair get equal norms, so that none drowns in the rounding of another.
    """
    lefts, rights = [], []
    for pair in pairs:
        norms = float(pair.left.norm()), float(pair.right.norm()) * abs(pair.coefficient)
        balance = math.sqrt(norms[1] / norms[0]) if all(norms) else 1.0
        lefts.append(pair.left * balance)
        rights.append(pair.right * (pair.coefficient / balance))
    return torch.cat(lefts, 1), torch.cat(rights)


def _norm(left: Tensor, right: Tensor) -> float:
    """The Frobenius norm of left · right."""
    return math.sqrt(max(0.0, float(((left.T @ left) * (right @ right.T)).sum())))
