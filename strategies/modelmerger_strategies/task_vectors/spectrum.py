"""Singular values and vectors of task vectors, without the directions that rounding alone makes.

A task vector of low rank has full rank once its model was rounded. Singular values count if they are above two
tolerances: `max(rows, columns)·ε·σ₁`, up to which the arithmetic itself goes wrong (ε of its dtype), and twice the
expected norm of what rounding has changed, `rms(ulp)/√12·(√rows + √columns)` for the dtype that the model's numbers fit
into (Davidson and Szarek 2001, "Local operator theory, random matrices and Banach spaces", theorem II.13). Where no
singular value is above the second one, it is left aside.

The decomposition runs in one thread, on memory of its own, so its bits depend on neither threads nor slices.
"""

import math
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from torch import Tensor

ROUNDING = 2.0
"""So many times the expected norm of rounding errors are taken for rounding errors."""


@frozen(eq=False)
class Spectrum:
    """A matrix as left · diag(values) · right."""

    left: "Tensor"
    """Orthonormal columns: (rows, rank)."""
    values: "Tensor"
    """Positive, the largest first: (rank,)."""
    right: "Tensor"
    """Orthonormal rows: (rank, columns)."""

    def first(self, rank: int) -> "Spectrum":
        """The largest ones alone."""
        return Spectrum(self.left[:, :rank], self.values[:rank], self.right[:rank])


def spectrum_of(matrix: "Tensor", noise: float, size: int) -> Spectrum:
    """The singular values of a matrix that count, and their vectors.

    noise: of its numbers, as from `rounding_noise`. size: the larger side of the matrix, or of the one it stands for.
    """
    import torch

    left, values, right = torch.linalg.svd(matrix.clone(memory_format=torch.contiguous_format), full_matrices=False)
    most = float(values[0])
    least = size * torch.finfo(matrix.dtype).eps * most
    rounded = ROUNDING * noise * sum(map(math.sqrt, matrix.shape))
    rank = int((values > max(least, rounded if rounded < most else 0.0)).sum())
    return Spectrum(left, values, right).first(rank)


def rounding_noise(model: "Tensor") -> float:
    """The root mean square of what rounding has changed in the numbers of a tensor, by the dtype that they fit into."""
    import torch

    bits = _significant_bits(model)
    if bits is None:
        return 0.0
    _, exponents = torch.frexp(model)
    units = torch.ldexp(model.ne(0).to(model.dtype), exponents - bits)
    return float(torch.linalg.vector_norm(units, dtype=torch.float64)) / math.sqrt(12 * model.numel())


def nearest_orthogonal(matrix: "Tensor", size: int) -> "Tensor":
    """The factor of the polar decomposition that is nearest to a matrix: orthonormal on what the matrix spans.

    size: as in `spectrum_of`.
    """
    found = spectrum_of(matrix, 0.0, size)
    return found.left @ found.right


def _significant_bits(model: "Tensor") -> int | None:
    """Those of the first of bfloat16, float16 and float32 that holds all numbers as they are."""
    import torch

    known: list[tuple[torch.dtype, int]] = [(torch.bfloat16, 8), (torch.float16, 11), (torch.float32, 24)]
    return next((bits for dtype, bits in known if torch.equal(model.to(dtype).to(model.dtype), model)), None)
