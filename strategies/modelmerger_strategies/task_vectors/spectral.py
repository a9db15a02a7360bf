"""What the strategies that merge the singular values of whole matrices have in common: options and hooks.

Matrices are merged by their singular values. Vectors, embeddings, LM heads and tensors of more than two dimensions get
the mean of the updates, λ·Σ wᵢτᵢ/n of n models; λ is 1 there with `matched`.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen
from modelmerger import Terms, Traits, hookimpl, is_embedding, is_head, recalled, varying

from modelmerger_strategies.task_vectors import scaling
from modelmerger_strategies.task_vectors.spectrum import Spectrum, rounding_noise, spectrum_of
from modelmerger_strategies.task_vectors.splitting import Factors, terms_of
from modelmerger_strategies.task_vectors.total import total

if TYPE_CHECKING:
    from torch import Tensor

TRAITS = Traits(models=(1, None), needs_base=True, copies=20)  # 15 to 19 were measured, of square matrices


@frozen(kw_only=True)
class Options:
    """Options of all of them."""

    scaling_factor: float | Literal["matched"] = varying(default="matched")
    """λ, what the merged task vector is multiplied by; `matched`: as long as a share of Σ wᵢτᵢ, per matrix."""


@frozen(eq=False)
class Updates:
    """The task vectors of a matrix."""

    tensors: Sequence["Tensor"]
    """One a model."""
    weights: Sequence[float]
    """One a model."""
    noise: Sequence[float]
    """The root mean square of what rounding has changed in the numbers of each model."""
    shape: Sequence[int]
    """Of the matrix. The task vectors have it, or they are cores of updates to it."""

    @property
    def size(self) -> int:
        """The larger side of the matrix."""
        return max(self.shape)

    @property
    def total(self) -> "Tensor":
        """Σ wᵢτᵢ, a new tensor."""
        return total(self.tensors, self.weights)

    @property
    def spectrum(self) -> Spectrum:
        """The singular values of Σ wᵢτᵢ, which are made once for all options."""
        total, noise = self.total, self.total_noise
        return recalled("spectrum", [total], (noise, self.size), lambda: spectrum_of(total, noise, self.size))

    @property
    def total_noise(self) -> float:
        """That of Σ wᵢτᵢ."""
        return math.sqrt(sum((weight * noise) ** 2 for weight, noise in zip(self.weights, self.noise, strict=True)))

    @classmethod
    def of(cls, tensors: Sequence["Tensor"], weights: Sequence[float], shape: Sequence[int]) -> "Updates":
        """Those of models. tensors: of the models, and then of the base."""
        *models, base = tensors
        noise = [rounding_noise(model) for model in models]
        return cls([model - base for model in models], weights, noise, shape)


Hook = Callable[..., Any]


def hooks_of(merge: Callable[[Updates, Any], "Tensor"], share: float) -> tuple[Hook, Hook, Hook, Hook]:
    """The hooks `choose_view`, `find_coefficients`, `merge_tensor` and `merge_cores` of such a strategy.

    merge: makes the merged task vector of a matrix, a new tensor, also from the options. share: of `matched`, for
    four models or more.
    """

    @hookimpl
    def choose_view(tensor_name: str, shape: Sequence[int]) -> str:
        """Matrices are seen whole."""
        matrix = len(shape) == 2 and not is_embedding(tensor_name) and not is_head(tensor_name)
        return "whole" if matrix else "linear"

    @hookimpl
    def find_coefficients(weights: Sequence[float], options: Options) -> list[float]:
        """Those of the mean of the updates, and the base's."""
        factor = options.scaling_factor if isinstance(options.scaling_factor, float) else 1.0
        models = sum(weight != 0 for weight in weights)
        shares = [factor * weight / models if weight else 0.0 for weight in weights]
        return [*shares, 1.0 - sum(shares)]

    def scaled(updates: Updates, options: Options) -> "Tensor | None":
        """λ times the merged task vector; None where there is none."""
        if not updates.tensors or not updates.total.any():
            return None
        merged = merge(updates, options)
        measured = [scaling.measure(merged, updates.tensors, updates.weights)]
        return merged.mul_(scaling.scale(options.scaling_factor, len(updates.tensors), measured, share))

    @hookimpl
    def merge_tensor(
        tensors: Sequence["Tensor"], weights: Sequence[float], options: Options, shape: Sequence[int]
    ) -> "Tensor":
        """The base and λ times the merged task vector."""
        merged = scaled(Updates.of(tensors, weights, shape), options)
        return tensors[-1].clone() if merged is None else merged.add_(tensors[-1])

    @hookimpl
    def merge_cores(
        cores: Sequence["Tensor"],
        noise: Sequence[float],
        weights: Sequence[float],
        options: Options,
        shape: Sequence[int],
    ) -> "Tensor":
        """The same of the cores of adapters' updates: singular values and norms are those of the updates."""
        merged = scaled(Updates(cores, weights, noise, shape), options)
        return cores[0] * 0.0 if merged is None else merged

    return choose_view, find_coefficients, merge_tensor, merge_cores


def split_by(split: Callable[[Updates], Sequence[Factors]], share: float) -> Hook:
    """The hook `split_tensor` of such a strategy, where the merged task vector is λ·Σ wᵢ·termᵢ.

    split: makes the terms, one a model, whatever the weights are. share: as in `hooks_of`.
    """

    @hookimpl
    def split_tensor(tensors: Sequence["Tensor"], weights: Sequence[float], shape: Sequence[int]) -> Terms:
        """The terms, of rank 0 where no model changed anything."""
        updates = Updates.of(tensors, weights, shape)
        changed = any(tensor.any() for tensor in updates.tensors)
        terms = split(updates) if changed else [(one[:, :0].clone(), one[:0].clone()) for one in updates.tensors]
        return terms_of(terms, updates.tensors, share)

    return split_tensor
