"""Everything that does not fit among the models of a merge, two models at a time."""

import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import field, frozen

from modelmerger.planning.mismatches.buffers import is_buffer
from modelmerger.planning.mismatches.quantised import quantisation_scheme, quantised_problem
from modelmerger.planning.tensor_names import is_embedding
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.dtypes import DTYPES
from modelmerger.values.errors import Problem

if TYPE_CHECKING:
    from modelmerger.planning.mismatches.shapes import ShapeDifference


@frozen(eq=False, repr=False)
class Match:
    """A tensor of the output, and the name under which each checkpoint has it."""

    name: str
    """In the output."""
    source: int
    """The checkpoint that says shape and dtype."""
    names: Sequence[str | None]
    """One a checkpoint; None where that lacks the tensor."""


@frozen(eq=False, repr=False)
class _Differences:
    """Between two checkpoints."""

    missing: list[str] = field(factory=list)
    surplus: list[str] = field(factory=list)
    shapes: "list[ShapeDifference]" = field(factory=list)
    dtypes: dict[tuple[str, str], list[str]] = field(factory=lambda: defaultdict(list))


def mismatches(
    checkpoints: Sequence[Checkpoint],
    donor: int,
    matches: Sequence[Match],
    surplus: Sequence[tuple[str, int]],
    *,
    complete: bool,
) -> Iterator[Problem]:
    """Every problem, one for each cause and two models; for a quantised model that does not fit, only that it is one.

    surplus: tensors that the donor lacks, each with a checkpoint that has it. complete: whether all must have all.
    """
    found = _find(checkpoints, donor, matches, surplus if complete else (), complete)
    if not found:
        return
    from modelmerger.planning.mismatches.names import name_problems
    from modelmerger.planning.mismatches.shapes import shape_problems

    quantised = {i for i, checkpoint in enumerate(checkpoints) if quantisation_scheme(checkpoint)}
    yield from (quantised_problem(checkpoints[i]) for i in sorted(quantised & {i for pair in found for i in pair}))
    rows = [
        info.shape[0] for one in checkpoints for name, info in one.tensors.items() if is_embedding(name) and info.shape
    ]
    for (source, index), differences in found.items():
        if {source, index} & quantised:
            continue
        first, other = checkpoints[source], checkpoints[index]
        yield from shape_problems(differences.shapes, first, other, max(rows, default=0))
        yield from _dtype_problems(differences.dtypes, first, other)
        yield from name_problems(differences.missing, differences.surplus, first, other)


def _find(
    checkpoints: Sequence[Checkpoint],
    donor: int,
    matches: Sequence[Match],
    surplus: Sequence[tuple[str, int]],
    complete: bool,
) -> dict[tuple[int, int], _Differences]:
    """By the numbers of two checkpoints, in the order of the second: the one that is compared with, and the other.

    A buffer, which is no weight, may be missing, or have another form.
    """

    @functools.cache
    def quantised() -> bool:
        return any(map(quantisation_scheme, checkpoints))

    found: dict[tuple[int, int], _Differences] = defaultdict(_Differences)
    for match in matches:
        info = checkpoints[match.source].tensors[match.name]
        for index, name in enumerate(match.names):
            pair = match.source, index
            if name is None:
                if complete and not is_buffer(match.name, info, quantised):
                    found[pair].missing.append(match.name)
                continue
            other = checkpoints[index].tensors[name]
            if other != info and all(is_buffer(match.name, one, quantised) for one in (info, other)):
                continue
            if other.shape != info.shape:
                from modelmerger.planning.mismatches.shapes import ShapeDifference

                found[pair].shapes.append(ShapeDifference(match.name, info.shape, other.shape))
            families = DTYPES[other.dtype].family, DTYPES[info.dtype].family
            if families[0] != families[1] or (families[0] != "float" and other.dtype != info.dtype):
                found[pair].dtypes[other.dtype, info.dtype].append(match.name)
    for name, index in surplus:
        if not is_buffer(name, checkpoints[index].tensors[name], quantised):
            found[donor, index].surplus.append(name)
    return dict(sorted(found.items(), key=lambda entry: entry[0][1]))


def _dtype_problems(
    dtypes: Mapping[tuple[str, str], Sequence[str]], first: Checkpoint, other: Checkpoint
) -> Iterator[Problem]:
    for (theirs, ours), names in dtypes.items():
        more = f", and so are {len(names) - 1:,} more tensors" if len(names) > 1 else ""
        message = f"is {theirs} here and {ours} in '{first.name}'{more}. Convert one of the models first."
        yield Problem(message, other.place, names[0])
