"""Which tensor of which checkpoint goes with which: by name, with one rule for tied weights; and what does not fit."""

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from modelmerger.planning.mismatches.buffers import is_buffer
from modelmerger.planning.mismatches.finding import Match, mismatches
from modelmerger.planning.mismatches.quantised import quantisation_scheme
from modelmerger.values.checkpoint import Checkpoint, TensorInfo
from modelmerger.values.dtypes import DTYPES
from modelmerger.values.errors import Problem
from modelmerger.values.options.core import MissingTensors
from modelmerger.values.tensor_plan import NO_RENAMES
from modelmerger.values.text import amount, shown


@frozen(eq=False, repr=False)
class Aligned:
    """A tensor of the output, and which tensors of the checkpoints belong to it."""

    name: str
    """In the output."""
    info: TensorInfo
    """Its dtype and shape in the source."""
    renames: Mapping[int, str]
    """Checkpoint → its own name for the tensor, where that is another."""
    exact: bool
    """Whether the tensor cannot be merged, so that all models must have the same bits."""
    source: int
    """The checkpoint that says shape and dtype: the donor, unless the donor lacks the tensor."""
    taken: bool = False
    """Whether the source's tensor is taken as it is, and the other checkpoints do not count."""

    def name_in(self, checkpoint: int) -> str:
        """The name under which a checkpoint has the tensor."""
        return self.renames.get(checkpoint, self.name)


def align(
    checkpoints: Sequence[Checkpoint], donor: int, missing: MissingTensors = "error"
) -> tuple[list[Aligned], list[Problem]]:
    """The donor's tensors in the donor's order, then those that other checkpoints add; and what does not fit.

    A checkpoint that leaves out its LM head because it is tied to the embedding stands in with the embedding, where the
    donor has a head of its own. The other way round, the output has no tensor for the head. Tensors that are not
    floating point, and float8 tensors of quantised models, can only be copied, and only if all models have equal bits.

    missing: what becomes of a tensor that only some checkpoints have. "error": it is an error, unless it is a buffer,
    which is treated as by "donor". "donor": one that the donor has is taken from the donor, and others are left out.
    "union": others are taken from the first checkpoint that has them. A buffer is the donor's also where not all
    checkpoints store it in one form. What is taken and left out is noted.
    """
    reference = checkpoints[donor]
    surplus = [
        (name, i) for i, other in enumerate(checkpoints) for name in other.tensors if name not in reference.tensors
    ]
    sources = dict.fromkeys(reference.tensors, donor)
    if missing == "union":  # an LM head that the donor ties is there, so nothing is missing
        for name, index in surplus:
            if name not in reference.aliases:
                sources.setdefault(name, index)
    schemes = [quantisation_scheme(checkpoint) for checkpoint in checkpoints]
    aligned: list[Aligned] = []
    matches: list[Match] = []
    otherwise: dict[str, int] = {}
    problems: list[Problem] = []
    for name, source in sources.items():
        info = checkpoints[source].tensors[name]
        names = [_name_in(checkpoint, name) for checkpoint in checkpoints]
        renames = {i: other for i, other in enumerate(names) if other not in (name, None)} or NO_RENAMES
        exact = DTYPES[info.dtype].family != "float" or (any(schemes) and info.dtype.startswith("F8"))
        stored = [checkpoints[i].tensors[other] for i, other in enumerate(names) if other is not None]
        if stored.count(info) < len(stored) and all(is_buffer(name, one, lambda: any(schemes)) for one in stored):
            otherwise[name] = source
        aligned.append(Aligned(name, info, renames, exact, source, None in names or name in otherwise))
        matches.append(Match(name, source, names))
        if DTYPES[info.dtype].bits == 6:
            problems.append(_across_bytes(name, checkpoints[source], info))
    tied = [(name, index) for name, index in surplus if name in reference.aliases]
    if missing == "error":
        problems += [_has_its_own(name, reference, checkpoints[index]) for name, index in tied]
    problems += mismatches(
        checkpoints, donor, matches, [entry for entry in surplus if entry not in tied], complete=missing == "error"
    )
    if missing != "error" or not problems:  # in the latter case, what is missing are buffers
        left = [(name, index) for name, index in surplus if name not in sources]
        where = "options.missing_tensors" if missing != "error" else reference.place
        problems += _notes(checkpoints, donor, aligned, left, otherwise, where)
    return aligned, problems


def _name_in(checkpoint: Checkpoint, name: str) -> str | None:
    """The name under which a checkpoint has a tensor; None where it lacks it."""
    return name if name in checkpoint.tensors else checkpoint.aliases.get(name)


def _across_bytes(name: str, checkpoint: Checkpoint, info: TensorInfo) -> Problem:
    message = f"is {info.dtype}, whose numbers lie across bytes, which cannot be taken over. Convert it first."
    return Problem(message, checkpoint.place, name)


def _notes(
    checkpoints: Sequence[Checkpoint],
    donor: int,
    aligned: Sequence[Aligned],
    left: Sequence[tuple[str, int]],
    otherwise: Mapping[str, int],
    where: str,
) -> Iterator[Problem]:
    """What became of tensors that some models lack, or store otherwise: of how many, with an example."""
    whose = f"the donor '{checkpoints[donor].name}'"
    taken = [(tensor.name, tensor.source) for tensor in aligned if tensor.taken and tensor.name not in otherwise]
    kept = [entry for entry in taken if entry[1] == donor]
    added = [entry for entry in taken if entry[1] != donor]
    for found, what in (
        (list(otherwise.items()), f"not all models store alike, and that is no weight: taken from {whose} unmerged"),
        (kept, f"not every model has: taken from {whose} unmerged"),
        (added, f"{whose} lacks: added unmerged from the first model that has such a tensor"),
        (left, f"{whose} has no place for: left out"),
    ):
        if found:
            name, index = found[0]
            count = amount(len(dict(found)), "tensor")
            message = f"{count} that {what}, for example {shown(name)} of '{checkpoints[index].name}'."
            yield Problem(message, where, severity="note")


def _has_its_own(name: str, donor: Checkpoint, other: Checkpoint) -> Problem:
    return Problem(
        f"'{other.name}' has a matrix of its own here, where '{donor.name}' ties it to {donor.aliases[name]}. "
        "Merge it with an untied base model, or tie it first.",
        other.place,
        name,
    )
