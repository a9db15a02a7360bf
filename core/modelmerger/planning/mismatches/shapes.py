"""Shapes that differ between two models, one problem for each cause."""

from collections.abc import Hashable, Iterator, Sequence

from attrs import frozen

from modelmerger.planning.tensor_names import is_embedding, is_head, layer_of
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import Problem


@frozen
class ShapeDifference:
    """A tensor that has another shape in another model."""

    name: str
    """Its name in the output."""
    ours: tuple[int, ...]
    """Its shape in the model that it is compared with."""
    theirs: tuple[int, ...]
    """Its shape in the other model."""

    @property
    def sizes(self) -> frozenset[Hashable]:
        """The sizes that differ, as pairs; for another number of dimensions, these numbers alone."""
        if len(self.ours) != len(self.theirs):
            return frozenset({("dimensions", len(self.ours), len(self.theirs))})
        return frozenset(pair for pair in zip(self.ours, self.theirs, strict=True) if pair[0] != pair[1])


def shape_problems(
    differences: Sequence[ShapeDifference], first: Checkpoint, other: Checkpoint, most_rows: int
) -> Iterator[Problem]:
    """One problem for a vocabulary of another size, and one for each other cause.

    Differences are of one cause where they share a pair of sizes. most_rows: those of the largest embedding among all
    models of the merge.
    """
    rows = {
        difference.sizes
        for difference in differences
        if len(difference.sizes) == 1
        and len(difference.ours) == len(difference.theirs) > 1
        and difference.ours[0] != difference.theirs[0]
        and (is_embedding(difference.name) or is_head(difference.name))
    }
    of_vocabulary = [d for d in differences if d.sizes in rows and layer_of(d.name) is None]
    if of_vocabulary:
        yield _resized(of_vocabulary[0], first, other, most_rows)
    rest = [difference for difference in differences if difference not in of_vocabulary]
    for cause in _causes(rest):
        yield _other_size(cause, first, other)


def _resized(difference: ShapeDifference, first: Checkpoint, other: Checkpoint, most_rows: int) -> Problem:
    ours, theirs = difference.ours[0], difference.theirs[0]
    target = max(ours, theirs, most_rows)
    smaller = [f"'{model.name}'" for model, rows in ((first, ours), (other, theirs)) if rows < target]
    return Problem(
        f"the vocabulary was resized: {theirs} rows here, {ours} in '{first.name}', and a tokenizer is missing. "
        f"Add it, or call resize_token_embeddings({target}) on {' and '.join(smaller)}, and save that.",
        other.place,
        difference.name,
    )


def _other_size(cause: Sequence[ShapeDifference], first: Checkpoint, other: Checkpoint) -> Problem:
    example = cause[0]
    message = f"has shape {list(example.theirs)} here and {list(example.ours)} in '{first.name}'"
    if len(cause) == 1:
        advice = ". Only equal shapes can be merged."
    else:
        advice = f", and {len(cause) - 1:,} more tensors differ likewise. Only models of one size can be merged."
    return Problem(message + advice, other.place, example.name)


def _causes(differences: Sequence[ShapeDifference]) -> list[list[ShapeDifference]]:
    """Those that share a pair of sizes, directly or through others, together."""
    causes: list[tuple[set[Hashable], list[int]]] = []
    for index, difference in enumerate(differences):
        sizes, members = set(difference.sizes), [index]
        for cause in [cause for cause in causes if cause[0] & sizes]:
            causes.remove(cause)
            sizes |= cause[0]
            members += cause[1]
        causes.append((sizes, sorted(members)))
    return [[differences[index] for index in members] for members in sorted(members for _, members in causes)]
