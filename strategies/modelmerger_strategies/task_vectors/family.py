"""What the strategies on task vectors have in common: keep a part of each task vector, merge what is kept, scale it.

They differ in what they keep, how they merge it, and their options.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from attrs import evolve, frozen
from modelmerger import Terms, hookimpl, varying

from modelmerger_strategies.task_vectors import scaling
from modelmerger_strategies.task_vectors.splitting import terms_of

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1 << 17
"""Elements that are kept and merged at a time: more do not stay in the caches, and with fewer, threads wait for the
interpreter."""


@frozen(kw_only=True)
class Options:
    """Options of all of them."""

    scaling_factor: float | Literal["matched"] = varying(default="matched")
    """λ, what the merged task vector is multiplied by; `matched`: as long as a share of Σ wᵢτᵢ, per tensor,
    1.6/n of n models, from 0.4 to 1."""


@frozen(kw_only=True)
class Told:
    """What the config says of a tensor."""

    options: Any
    """An instance of the strategy's `Options`."""
    model_options: Sequence[Any]
    """One of its `ModelOptions` a model."""
    shape: Sequence[int]
    """Of the tensor."""

    def each(self, name: str) -> list[float]:
        """An option that a model may have of its own, one a model: its own, or else that of `options`."""
        own = (getattr(told, name) for told in self.model_options)
        return [getattr(self.options, name) if number is None else number for number in own]


@frozen(kw_only=True, eq=False)
class Slice(Told):
    """A slice of a tensor, or a block that is measured, as `merge_tensor` describes its arguments."""

    tensors: Sequence["Tensor"]
    """The slice of each task vector."""
    inputs: Sequence[int]
    """The index of each model in the config."""
    weights: Sequence[float]
    """One a model."""
    measurements: Sequence["Tensor"]
    """What the rounds before found."""
    random: Callable[..., "Tensor"]
    """Random numbers for the elements, given the index of a model, as `merge_tensor` describes it."""

    def pieces(self) -> Iterator[tuple[Any, "Slice"]]:
        """The slice in pieces that stay in caches, each with its place in the first dimension."""
        first = self.tensors[0]
        length = first.shape[0] if first.dim() else 0
        step = max(1, PIECE * length // max(1, first.numel()))
        if step >= length:
            yield ..., self
            return
        random = functools.cache(self.random)
        for start in range(0, length, step):
            place = slice(start, start + step)
            tensors = [tensor[place] for tensor in self.tensors]
            yield place, evolve(self, tensors=tensors, random=functools.partial(_part, random, place))


def _part(random: Callable[..., "Tensor"], place: slice, model: int, **how: Any) -> "Tensor":
    return random(model, **how)[place]


class Keep(Protocol):
    """What is kept of task vectors."""

    def rounds(self, told: Told, /) -> int:
        """How many rounds must be measured before it is known, at most."""

    def taken(self, told: Told, measurements: Sequence["Tensor"], /) -> int | None:
        """How many rounds it took; None as long as it is not known."""

    def measure(self, number: int, given: Slice, /) -> "Tensor":
        """What round `number` measures of a block."""

    def found(self, given: Slice, /) -> Any:
        """What the rounds say about the whole tensor, for `kept`."""

    def kept(self, given: Slice, found: Any, /) -> Sequence["Tensor"]:
        """The task vectors with zeros in place of what is not kept; they may be the tensors that were given."""


Merge = Callable[[Slice, Sequence["Tensor"], "Tensor"], object]
"""Merges what is kept into the last argument."""
Hook = Callable[..., Any]


def hooks_of(keep: Keep, merge: Merge) -> tuple[Hook, Hook, Hook]:
    """The hooks `count_rounds`, `measure_tensor` and `merge_tensor` of such a strategy."""

    @hookimpl
    def count_rounds(model_options: Sequence[Any], options: Options, shape: Sequence[int]) -> int:
        """Those of what is kept, and one for norms unless λ is a number."""
        told = Told(options=options, model_options=model_options, shape=shape)
        return keep.rounds(told) + (options.scaling_factor == "matched")

    @hookimpl
    def measure_tensor(
        round: int,
        tensors: Sequence["Tensor"],
        inputs: Sequence[int],
        weights: Sequence[float],
        model_options: Sequence[Any],
        options: Options,
        measurements: Sequence["Tensor"],
        shape: Sequence[int],
        random: Callable[..., "Tensor"],
    ) -> "Tensor":
        """What is needed to know what is kept, then the norms that λ follows from."""
        given = Slice(
            options=options,
            model_options=model_options,
            shape=shape,
            tensors=tensors,
            inputs=inputs,
            weights=weights,
            measurements=measurements,
            random=random,
        )
        if keep.taken(given, measurements) is None:
            return keep.measure(round, given)
        return scaling.measure(_merged(given, keep, merge), tensors, weights)

    @hookimpl
    def merge_tensor(
        tensors: Sequence["Tensor"],
        inputs: Sequence[int],
        weights: Sequence[float],
        model_options: Sequence[Any],
        options: Options,
        measurements: Sequence["Tensor"],
        shape: Sequence[int],
        random: Callable[..., "Tensor"],
    ) -> "Tensor":
        """λ·τ of the slice."""
        given = Slice(
            options=options,
            model_options=model_options,
            shape=shape,
            tensors=tensors,
            inputs=inputs,
            weights=weights,
            measurements=measurements,
            random=random,
        )
        merged = _merged(given, keep, merge)
        factor = scaling.scale(options.scaling_factor, len(tensors), measurements)
        return merged if factor == 1 else merged.mul_(factor)

    return count_rounds, measure_tensor, merge_tensor


def split_by(keep: Keep) -> Hook:
    """The hook `split_tensor` of such a strategy that adds up what is kept."""

    @hookimpl
    def split_tensor(
        tensors: Sequence["Tensor"],
        inputs: Sequence[int],
        weights: Sequence[float],
        model_options: Sequence[Any],
        options: Options,
        measurements: Sequence["Tensor"],
        shape: Sequence[int],
        random: Callable[..., "Tensor"],
    ) -> Terms:
        """What is kept of each task vector."""
        given = Slice(
            options=options,
            model_options=model_options,
            shape=shape,
            tensors=tensors,
            inputs=inputs,
            weights=weights,
            measurements=measurements,
            random=random,
        )
        kept = keep.kept(given, keep.found(given))
        terms = [own.clone() if own is tensor else own for own, tensor in zip(kept, tensors, strict=True)]
        return terms_of(terms, tensors, scaling.SHARE, divides=True)

    return split_tensor


def _merged(given: Slice, keep: Keep, merge: Merge) -> "Tensor":
    """τ of a slice: a new tensor."""
    found = keep.found(given)
    merged = given.tensors[0].new_empty(given.tensors[0].shape)
    for place, piece in given.pieces():
        merge(piece, keep.kept(piece, found), merged[place])
    return merged
