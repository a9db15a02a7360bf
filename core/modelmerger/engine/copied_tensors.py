"""Tensors that are copied, not merged: all models must have the same bits, which is checked before the first write."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from attrs import frozen

from modelmerger.engine.arithmetic import Workspace
from modelmerger.planning.mismatches.quantised import is_counter, quantisation_scheme, quantised_weights
from modelmerger.values.checkpoint import Checkpoint, TensorInfo, merges_among
from modelmerger.values.errors import ModelCompatibilityError, Problem
from modelmerger.values.plan import MergePlan
from modelmerger.values.tensor_plan import TensorPlan
from modelmerger.values.text import amount

COMPARED = 1 << 18
"""Elements that are compared in one go."""


@frozen(eq=False, repr=False)
class Compared:
    """What came of comparing."""

    bytes: int = 0
    """How many were read."""
    notes: Sequence[Problem] = ()
    """Whose counters are taken where they differ."""

    def __add__(self, other: "Compared") -> "Compared":
        return Compared(self.bytes + other.bytes, [*self.notes, *other.notes])


def check_exact_tensors(plan: MergePlan, checkpoints: Sequence[Checkpoint]) -> Compared:
    """Compares all models' bits of the tensors that are copied.

    Counters and other integers that are no weights may differ: the donor's are taken, and that is noted. Raises
    `ModelCompatibilityError` for other tensors whose bits differ, with one problem for each two models.
    """
    workspaces = Workspace(), Workspace()
    counters: list[TensorPlan] = []
    differing: dict[tuple[int, int], list[TensorPlan]] = defaultdict(list)
    quantised = any(quantisation_scheme(checkpoint) for checkpoint in checkpoints)
    for tensor in plan.tensors:
        if tensor.action == "copy" and len(tensor.inputs) > 1:
            first, *others = tensor.inputs
            unequal = _unequal(tensor, checkpoints, first, others, workspaces)
            if unequal and not quantised and is_counter(tensor.name, TensorInfo(tensor.dtype, tensor.shape)):
                counters.append(tensor)
                continue
            for other in unequal:
                differing[first, other].append(tensor)
    if differing:
        raise ModelCompatibilityError(
            *(_problem(tensors, checkpoints[i], checkpoints[j]) for (i, j), tensors in sorted(differing.items()))
        )
    read = sum(workspace.take_bytes_read() for workspace in workspaces)
    return Compared(read, [_taken(counters, checkpoints)] if counters else [])


def check_exact_tensors_within(checkpoints: Iterable[Checkpoint]) -> Compared:
    """The same for every merge among the checkpoints, at any depth."""
    merges = [(one.merge, one.sources) for one in merges_among(checkpoints) if one.merge is not None]
    return sum((check_exact_tensors(plan, sources) for plan, sources in merges), Compared())


def _unequal(
    tensor: TensorPlan,
    checkpoints: Sequence[Checkpoint],
    first: int,
    others: Sequence[int],
    workspaces: tuple[Workspace, Workspace],
) -> list[int]:
    """Those of the other checkpoints whose bits differ from the first."""
    unequal: list[int] = []
    elements = tensor.elements
    for start in range(0, elements, COMPARED):
        stop = min(elements, start + COMPARED)
        expected = _bits(tensor, checkpoints, first, start, stop, workspaces[0])
        for other in others:
            if other not in unequal and not torch.equal(
                expected, _bits(tensor, checkpoints, other, start, stop, workspaces[1])
            ):
                unequal.append(other)
    return unequal


def _bits(
    tensor: TensorPlan, checkpoints: Sequence[Checkpoint], index: int, start: int, stop: int, workspace: Workspace
) -> torch.Tensor:
    return workspace.read(checkpoints[index], tensor.name_in(index), start, stop).view(torch.uint8)


def _taken(counters: Sequence[TensorPlan], checkpoints: Sequence[Checkpoint]) -> Problem:
    example = counters[0]
    source = checkpoints[example.inputs[0]]
    verb = "differs" if len(counters) == 1 else "differ"
    message = (
        f"{amount(len(counters), 'tensor')} of integers or booleans {verb} between the models and cannot be merged: "
        f"taken from '{source.name}'. This is the first."
    )
    return Problem(message, source.place, example.name, severity="note")


def _problem(tensors: Sequence[TensorPlan], first: Checkpoint, second: Checkpoint) -> Problem:
    example = tensors[0]
    quantised = next((one for one in (second, first) if quantisation_scheme(one)), None)
    if quantised is None:
        what = f"holds {example.dtype} numbers, which can only be taken over"
        advice = "Give every model the donor's tensor"
    else:
        what, advice = quantised_weights(quantised), "Dequantise the models first"
    more = f" here and in {amount(len(tensors) - 1, 'more tensor')}" if len(tensors) > 1 else ""
    message = f"{what}, and '{second.name}' differs from '{first.name}'{more}. {advice}."
    return Problem(message, second.place, example.name)
