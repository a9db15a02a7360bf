"""What a dialect scorer answers: how probable each variety of a language is for each text, and how far it can be trusted."""

from collections.abc import Sequence

from attrs import frozen


@frozen(kw_only=True)
class DialectScores:
    """scorer: its name. stated: its own accuracy, and on what it was measured, as a sentence that goes with every figure made of it.

    labels: the varieties. rows: for each text the probability of each label, in their order; None for a text it cannot judge.
    """

    scorer: str
    stated: str
    labels: Sequence[str]
    rows: Sequence[Sequence[float] | None]

    def named(self) -> list[str | None]:
        """The most probable label of each text; None where there is none."""
        return [None if row is None else self.labels[max(range(len(row)), key=row.__getitem__)] for row in self.rows]
