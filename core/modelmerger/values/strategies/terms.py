"""The terms of a merged tensor: what it is a sum of, whatever the weights are."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from attrs import frozen

Weigh = Callable[[Sequence[float], Sequence[Any], Any], Sequence[float]]
"""Weights, models' options and options, as `merge_tensor` has them → a coefficient a term."""


@frozen(eq=False)
class Terms:
    """A merged tensor as a sum: Σ cᵢ·termᵢ, and the base where the strategy wants one.

    The terms are the same for any weights that leave out the same models, namely those of weight 0.
    """

    terms: Sequence[Any]
    """Each is a tensor of torch, and has the shape that `merge_tensor` sees the slice in, and the dtype. Of a matrix,
    it may be two factors: (rows, r) and (r, columns), whose product is the term."""
    weigh: Weigh
    """Gives the cᵢ, one a term."""
    follows: Collection[str] = ()
    """The options, and options of models, that `weigh` goes by. The terms depend on all others."""
