"""Tensors that are copied, not merged: all models must have the same bits, which is checked before the first write."""

from collections.abc import Iterable, Sequence

import torch

from modelmerger.engine.arithmetic import Workspace
from modelmerger.planning.alignment import quantisation_scheme
from modelmerger.values.checkpoint import Checkpoint, merges_among
from modelmerger.values.errors import ModelCompatibilityError, Problem
from modelmerger.values.plan import MergePlan, TensorPlan

COMPARED = 1 << 18
"""Elements that are compared in one go."""


def check_exact_tensors(plan: MergePlan, checkpoints: Sequence[Checkpoint]) -> int:
    """Returns how many bytes were read. Raises `ModelCompatibilityError` for copied tensors whose bits differ."""
    workspaces = Workspace(), Workspace()
    problems: list[Problem] = []
    for tensor in plan.tensors:
        if tensor.action == "copy" and len(tensor.inputs) > 1:
            first, *others = tensor.inputs
            unequal = _unequal(tensor, checkpoints, first, others, workspaces)
            problems += [_problem(tensor, checkpoints[first], checkpoints[other]) for other in unequal]
    if problems:
        raise ModelCompatibilityError(*problems)
    return sum(workspace.take_bytes_read() for workspace in workspaces)


def check_exact_tensors_within(checkpoints: Iterable[Checkpoint]) -> int:
    """The same for every merge among the checkpoints, at any depth. Returns how many bytes were read."""
    return sum(
        check_exact_tensors(one.merge, one.sources) for one in merges_among(checkpoints) if one.merge is not None
    )


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


def _problem(tensor: TensorPlan, first: Checkpoint, second: Checkpoint) -> Problem:
    quantised = quantisation_scheme(first) or quantisation_scheme(second)
    kind = f"quantised weights ({quantised})" if quantised else f"{tensor.dtype} numbers"
    advice = "Dequantise the models first" if quantised else "Give every model the donor's tensor"
    return Problem(
        f"holds {kind}, which can only be taken over, and '{second.name}' differs from '{first.name}'. {advice}.",
        second.place,
        tensor.name,
    )
