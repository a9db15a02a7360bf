"""Keeps elements by magnitude: thresholds of each tensor, exact, from ranks.

A sample shows about where the thresholds lie, and one reading finds them there. Where one lies elsewhere, or too many
magnitudes lie there, two more readings find it by histograms.
"""

import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from attrs import frozen
from modelmerger import hookimpl, must_be_between, varying

from modelmerger_strategies.task_vectors import family, magnitudes
from modelmerger_strategies.task_vectors.family import Hook, Slice, Told

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE, READING = 0, 1
"""The rounds in which brackets are found, and what lies within them."""
BRACKETED = 2
"""How many rounds that takes."""
ROUNDS = BRACKETED + magnitudes.ROUNDS + 1
SHARE_KEPT = must_be_between(0, 1, open_below=True)


@frozen(kw_only=True)
class ModelOptions:
    """What these strategies want to know of each model."""

    density: float | None = varying(default=None, check=SHARE_KEPT)
    """The share of this model's task vector that is kept; where it is not given, that of `options`."""


@frozen
class Trimmed:
    """Of each task vector, the magnitudes between two ranks."""

    ranks: Callable[[Told], magnitudes.Ranks]
    """Of each task vector, the rank of the smallest magnitude that is kept, then of the largest; one or both may be
    left out."""

    def rounds(self, told: Told) -> int:
        """Those that find the thresholds, at most."""
        if not any(self.ranks(told)):
            return 0
        return 1 if _is_sample(told) else BRACKETED + magnitudes.ROUNDS

    def taken(self, told: Told, measurements: Sequence["Tensor"]) -> int | None:
        """How many rounds it took to find them; None as long as they are not found."""
        most = self.rounds(told)
        if len(measurements) >= most:
            return most
        found = len(measurements) >= BRACKETED and not _unknown(measurements)
        return BRACKETED if found else None

    def ranges(self, told: Told, number: int, measurements: Sequence["Tensor"]) -> Sequence[tuple[int, int]] | None:
        """The sample; then everything, though it is not to be expected that histograms are needed."""
        from modelmerger_strategies.task_vectors import brackets

        if number == SAMPLE:
            return brackets.sample_of(math.prod(told.shape))
        return () if number >= BRACKETED and not measurements else None

    def measure(self, number: int, given: Slice) -> "Tensor":
        """What lies within brackets, or histograms."""
        from modelmerger_strategies.task_vectors import brackets

        ranks = self.ranks(given)
        if number >= BRACKETED:
            found = given.measurements
            return magnitudes.count(given.tensors, _missed(ranks, found), number - BRACKETED, found[BRACKETED:])
        places = given.measurements[SAMPLE].tolist() if number == READING else [brackets.EVERYTHING] * _count(ranks)
        part = brackets.part(given.tensors, ranks, [(low, high) for low, high in places])
        return self._shrunk(number, given, part)

    def joined(self, number: int, told: Told, parts: Sequence["Tensor"]) -> "Tensor | None":
        """What lies within brackets in several parts; None for histograms, which are added up."""
        from modelmerger_strategies.task_vectors import brackets

        if number >= BRACKETED:
            return None
        most = brackets.MOST if number == READING else None  # there is always room for the sample
        return self._shrunk(number, told, brackets.joined(parts, most))

    def _shrunk(self, number: int, told: Told, part: "Tensor") -> "Tensor":
        """What is to be found once a statistic is of everything: brackets, or magnitudes."""
        import torch

        from modelmerger_strategies.task_vectors import brackets

        elements = math.prod(told.shape)
        if brackets.covered(part) < (brackets.sampled(elements) if number == SAMPLE else elements):
            return part
        ranks = list(chain.from_iterable(self.ranks(told)))
        if number == SAMPLE and not _is_sample(told):
            return torch.tensor(brackets.around(part, ranks, elements))
        return torch.tensor(brackets.at_ranks(part, ranks))

    def found(self, given: Slice) -> Sequence[Sequence[int]]:
        """The thresholds of each task vector."""
        ranks, measurements = self.ranks(given), given.measurements
        if not any(ranks):
            return ranks
        taken = self.taken(given, measurements) or 0
        found = iter(measurements[min(taken, BRACKETED) - 1].tolist())
        if taken <= BRACKETED:
            return [[next(found) for _ in wanted] for wanted in ranks]
        counted = iter(
            chain.from_iterable(magnitudes.find(_missed(ranks, measurements), measurements[BRACKETED:taken]))
        )
        return [[bits if (bits := next(found)) >= 0 else next(counted) for _ in wanted] for wanted in ranks]

    def kept(self, given: Slice, found: Sequence[Sequence[int]]) -> Sequence["Tensor"]:
        """What lies between the thresholds."""
        pairs = zip(given.tensors, found, strict=True)
        return [magnitudes.keep(tensor, *bounds) if bounds else tensor for tensor, bounds in pairs]


def bracket_hooks(keep: Trimmed) -> tuple[Hook, Hook]:
    """The hooks `choose_ranges` and `join_measurements` of a strategy that keeps elements so."""

    @hookimpl
    def choose_ranges(
        round: int, measurements: Sequence["Tensor"], model_options: Sequence[Any], options: family.Options, shape: Any
    ) -> Sequence[tuple[int, int]] | None:
        """A sample, then everything; nothing once all is known."""
        told = Told(options=options, model_options=model_options, shape=shape)
        planned = round > len(measurements)
        taken = keep.rounds(told) if planned else keep.taken(told, measurements)
        if taken is None or round < taken:
            return keep.ranges(told, round, measurements)
        return None if round == taken and options.scaling_factor == "matched" else ()

    @hookimpl
    def join_measurements(
        parts: Sequence["Tensor"],
        round: int,
        measurements: Sequence["Tensor"],
        model_options: Sequence[Any],
        options: family.Options,
        shape: Any,
    ) -> "Tensor | None":
        """Several parts of what lies within brackets; norms and histograms are added up."""
        told = Told(options=options, model_options=model_options, shape=shape)
        return keep.joined(round, told, parts) if keep.taken(told, measurements) is None else None

    return choose_ranges, join_measurements


def _is_sample(told: Told) -> bool:
    """Whether the sample is all of the tensor."""
    from modelmerger_strategies.task_vectors import brackets

    return brackets.is_sample(math.prod(told.shape))


def _count(ranks: magnitudes.Ranks) -> int:
    return sum(map(len, ranks))


def _unknown(measurements: Sequence["Tensor"]) -> bool:
    return any(found < 0 for found in measurements[READING].tolist())


def _missed(ranks: magnitudes.Ranks, measurements: Sequence["Tensor"]) -> magnitudes.Ranks:
    """The ranks whose magnitudes do not lie within brackets."""
    found = iter(measurements[READING].tolist())
    return [[rank for rank in wanted if next(found) < 0] for wanted in ranks]
