"""Which tensor of which checkpoint goes with which: by name, with one rule for tied weights; and what does not fit."""

from collections.abc import Mapping, Sequence

from attrs import frozen

from modelmerger.checkpoint import Checkpoint, TensorInfo
from modelmerger.dtypes import DTYPES
from modelmerger.errors import Problem
from modelmerger.plan import NO_RENAMES


@frozen
class Aligned:
    """A tensor of the output: as the donor has it, where it has another name, and whether only equal bits can be taken."""

    name: str
    info: TensorInfo
    renames: Mapping[int, str]
    exact: bool


def align(checkpoints: Sequence[Checkpoint], donor: int) -> tuple[list[Aligned], list[Problem]]:
    """The donor's tensors in the donor's order, and every problem with the others'.

    A checkpoint that leaves out its LM head because it is tied to the embedding stands in with the embedding, where the
    donor has a head of its own. The other way round there is no place for the head, which is an error. Tensors that are not
    floating point, and float8 tensors of quantised models, can only be taken over, and only if all models have equal bits.
    """
    reference = checkpoints[donor]
    others = [(index, other) for index, other in enumerate(checkpoints) if index != donor]
    quantised = any(scheme(checkpoint) for checkpoint in checkpoints)
    aligned, problems = [], []
    for name, info in reference.tensors.items():
        renames = NO_RENAMES
        for index, other in others:
            found = other.tensors.get(name)
            if found is None and (alias := other.aliases.get(name)):
                found = other.tensors[alias]
                renames = {**renames, index: alias}
            if found is None:
                problems.append(_missing(name, reference, other))
            elif found.shape != info.shape or found.dtype != info.dtype:
                problems += _mismatch(name, reference, other, info, found)
        if DTYPES[info.dtype].bits == 6:
            message = f"is {info.dtype}, whose numbers lie across bytes, which cannot be taken over. Convert it first."
            problems.append(Problem(message, reference.place, name))
        exact = DTYPES[info.dtype].family != "float" or (quantised and info.dtype.startswith("F8"))
        aligned.append(Aligned(name, info, renames, exact))
    for _, other in others:
        problems += [_surplus(name, reference, other) for name in other.tensors if name not in reference.tensors]
    if problems:
        problems = [_quantised(checkpoint) for checkpoint in checkpoints if scheme(checkpoint)] + problems
    return aligned, problems


def scheme(checkpoint: Checkpoint) -> str:
    """The quantisation scheme that the model's config names, or an empty text."""
    config = (checkpoint.donor.config or {}).get("quantization_config")
    if not isinstance(config, Mapping):
        return ""
    return str(config.get("quant_method") or "an unnamed scheme")


def _quantised(checkpoint: Checkpoint) -> Problem:
    return Problem(
        f"holds quantised weights ({scheme(checkpoint)}), which can only be taken over, from models with equal bits. "
        "Dequantise it first.",
        checkpoint.place,
    )


def _missing(name: str, donor: Checkpoint, other: Checkpoint) -> Problem:
    return Problem(
        f"'{donor.name}' has this tensor and '{other.name}' lacks it. Merge models of one architecture.",
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
        f"'{other.name}' has this tensor and '{donor.name}' lacks it. Merge models of one architecture.",
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
