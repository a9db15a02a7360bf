"""Why tensors of an adapter change nothing of its base: one problem a cause, however many tensors it has."""

from collections.abc import Iterable

from attrs import field, frozen
from modelmerger import Checkpoint, Problem

UNGATHERED = "ungathered"
"""The cause of tensors that lie on several devices and were not gathered when they were saved."""


class MisfitError(Exception):
    """Why the tensors of one module make no change of the base; a sentence without its full stop."""

    def __init__(self, sentence: str, cause: str = "", advice: str = "", of_adapter: bool = False) -> None:
        """`cause`: what all misfits that have one reason have in common; empty: the sentence itself.

        `advice`: a further sentence about what to do. `of_adapter`: whether the sentence is about the whole adapter, so
        that no tensor is named.
        """
        super().__init__(sentence)
        self.cause = cause or sentence
        self.advice = advice
        self.of_adapter = of_adapter


@frozen(eq=False)
class Misfits:
    """What does not fit, by its cause."""

    _first: dict[str, tuple[MisfitError, str]] = field(factory=dict, init=False)
    """Cause → the first misfit that has it, and the key of its first tensor."""
    _counts: dict[str, int] = field(factory=dict, init=False)
    """Cause → how many tensors have it."""

    def add(self, misfit: MisfitError, keys: Iterable[str]) -> None:
        """Some tensors do not fit, for one reason."""
        for key in keys:
            self._first.setdefault(misfit.cause, (misfit, key))
            self._counts[misfit.cause] = self._counts.get(misfit.cause, 0) + 1

    @property
    def ungathered(self) -> bool:
        """Whether tensors are empty that have elements in a sound adapter; what else does not fit follows from it."""
        return UNGATHERED in self._first

    def problems(self, adapter: Checkpoint) -> list[Problem]:
        """One for each cause."""
        found = []
        for cause, (misfit, key) in self._first.items():
            others = 0 if misfit.of_adapter else self._counts[cause] - 1
            more = f" ({others:,} more like it)" if others else ""
            advice = f" {misfit.advice}" if misfit.advice else ""
            found.append(Problem(f"{misfit}{more}.{advice}", adapter.place, "" if misfit.of_adapter else key))
        return found
