"""Which tensor of which checkpoint goes with which: by name, with one rule for tied weights; and what does not fit."""

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from modelmerger.values.checkpoint import Checkpoint, TensorInfo
from modelmerger.values.dtypes import DTYPES
from modelmerger.values.errors import Problem
from modelmerger.values.plan import NO_RENAMES
from modelmerger.values.settings import MissingTensors
from modelmerger.values.text import amount, shown


@frozen
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

    missing: what becomes of a tensor that only some checkpoints have. "error": it is an error. "donor": one that the
    donor has is taken from the donor, and others are left out. "union": others are taken from the first checkpoint that
    has them. The last two are noted.
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
    quantised = any(quantisation_scheme(checkpoint) for checkpoint in checkpoints)
    aligned: list[Aligned] = []
    problems: list[Problem] = []
    for name, source in sources.items():
        info = checkpoints[source].tensors[name]
        names = [_name_in(checkpoint, name) for checkpoint in checkpoints]
        renames = {i: other for i, other in enumerate(names) if other not in (name, None)} or NO_RENAMES
        exact = DTYPES[info.dtype].family != "float" or (quantised and info.dtype.startswith("F8"))
        aligned.append(Aligned(name, info, renames, exact, source, None in names))
        problems += _tensor_problems(name, checkpoints, source, names, missing)
    if missing == "error":
        problems += [_surplus(name, reference, checkpoints[index]) for name, index in surplus]
    if problems:
        problems = [_quantised(checkpoint) for checkpoint in checkpoints if quantisation_scheme(checkpoint)] + problems
    if missing != "error":
        left = [(name, index) for name, index in surplus if name not in sources]
        problems += _notes(checkpoints, donor, aligned, left)
    return aligned, problems


def _name_in(checkpoint: Checkpoint, name: str) -> str | None:
    """The name under which a checkpoint has a tensor; None where it lacks it."""
    return name if name in checkpoint.tensors else checkpoint.aliases.get(name)


def _tensor_problems(
    name: str, checkpoints: Sequence[Checkpoint], source: int, names: Sequence[str | None], missing: MissingTensors
) -> Iterator[Problem]:
    """What is wrong with a tensor, whose name in each checkpoint is given."""
    first = checkpoints[source]
    info = first.tensors[name]
    for other, other_name in zip(checkpoints, names, strict=True):
        if other_name is not None:
            yield from _mismatch(name, first, other, info, other.tensors[other_name])
        elif missing == "error":
            yield _missing(name, first, other)
    if DTYPES[info.dtype].bits == 6:
        message = f"is {info.dtype}, whose numbers lie across bytes, which cannot be taken over. Convert it first."
        yield Problem(message, first.place, name)


def _notes(
    checkpoints: Sequence[Checkpoint], donor: int, aligned: Sequence[Aligned], left: Sequence[tuple[str, int]]
) -> Iterator[Problem]:
    """What `missing_tensors` did: to how many tensors, with an example."""
    whose = f"the donor '{checkpoints[donor].name}'"
    kept = [(tensor.name, donor) for tensor in aligned if tensor.taken and tensor.source == donor]
    added = [(tensor.name, tensor.source) for tensor in aligned if tensor.taken and tensor.source != donor]
    for found, what in (
        (kept, f"not every model has: taken from {whose} unmerged"),
        (added, f"{whose} lacks: added unmerged from the first model that has such a tensor"),
        (left, f"{whose} has no place for: left out"),
    ):
        if found:
            name, index = found[0]
            count = amount(len(dict(found)), "tensor")
            message = f"{count} that {what}, for example {shown(name)} of '{checkpoints[index].name}'."
            yield Problem(message, "options.missing_tensors", severity="note")


def quantisation_scheme(checkpoint: Checkpoint) -> str:
    """The quantisation scheme that the model's config names; empty where the model is not quantised."""
    config = (checkpoint.donor.config or {}).get("quantization_config")
    if not isinstance(config, Mapping):
        return ""
    return str(config.get("quant_method") or "an unnamed scheme")


def _quantised(checkpoint: Checkpoint) -> Problem:
    return Problem(
        f"holds quantised weights ({quantisation_scheme(checkpoint)}), which can only be taken over, "
        "from models with equal bits. Dequantise it first.",
        checkpoint.place,
    )


def _missing(name: str, donor: Checkpoint, other: Checkpoint) -> Problem:
    return Problem(
        f"'{donor.name}' has this tensor and '{other.name}' lacks it. "
        "Merge models of one architecture, or set missing_tensors.",
        other.place,
        name,
    )


def _surplus(name: str, donor: Checkpoint, other: Checkpoint) -> Problem:
    if alias := donor.aliases.get(name):
        return Problem(
            f"'{other.name}' has a matrix of its own here, where '{donor.name}' ties it to {alias}. "
            "Merge it with an untied base model, or tie it first.",
            other.place,
            name,
        )
    return Problem(
        f"'{other.name}' has this tensor and '{donor.name}' lacks it. "
        "Merge models of one architecture, or set missing_tensors.",
        other.place,
        name,
    )


def _mismatch(name: str, donor: Checkpoint, other: Checkpoint, info: TensorInfo, found: TensorInfo) -> list[Problem]:
    problems = []
    if found.shape != info.shape:
        message = f"has shape {list(found.shape)} here and {list(info.shape)} in '{donor.name}'."
        problems.append(Problem(f"{message} Only equal shapes can be merged.", other.place, name))
    families = DTYPES[found.dtype].family, DTYPES[info.dtype].family
    if families[0] != families[1] or (families[0] != "float" and found.dtype != info.dtype):
        message = f"is {found.dtype} here and {info.dtype} in '{donor.name}'."
        problems.append(Problem(f"{message} Convert one of the models first.", other.place, name))
    return problems
