"""What a labelling plugin answers: how probable each label is for each text, and how far it can be trusted."""

from collections.abc import Sequence

from attrs import frozen


@frozen(kw_only=True)
class LabelScores:
    """Probabilities of labels for a list of texts."""

    scorer: str
    """The name of what made them."""
    stated: str
    """Its own accuracy, and on what that was measured: a sentence that goes with every figure made of these."""
    labels: Sequence[str]
    """The labels that it knows."""
    rows: Sequence[Sequence[float] | None]
    """For each text the probability of each label, from 0 to 1, in their order; None for a text it cannot judge."""

    def best_labels(self) -> list[str | None]:
        """The most probable label of each text; None where there is none."""
        return [None if row is None else self.labels[max(range(len(row)), key=row.__getitem__)] for row in self.rows]
