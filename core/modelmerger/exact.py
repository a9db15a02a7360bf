"""Tensors that are taken over and not merged: all models must hold the same bits, which is read before anything is written."""

from collections.abc import Sequence

import torch

from modelmerger.alignment import scheme
from modelmerger.arithmetic import Workspace
from modelmerger.checkpoint import Checkpoint
from modelmerger.errors import ModelCompatibilityError, Problem
from modelmerger.plan import MergePlan, TensorPlan

PIECE = 1 << 18


def check_exact_tensors(plan: MergePlan, checkpoints: Sequence[Checkpoint]) -> None:
    """Raises `ModelCompatibilityError` for each copied tensor whose bits differ between the models."""
    workspaces = Workspace(), Workspace()
    problems = [
        _problem(tensor, checkpoints[tensor.inputs[0]], checkpoints[other])
        for tensor in plan.tensors
        if tensor.action == "copy"
        for other in tensor.inputs[1:]
        if not _equal(tensor, checkpoints, tensor.inputs[0], other, workspaces)
    ]
    if problems:
        raise ModelCompatibilityError(*problems)


def _equal(
    tensor: TensorPlan,
    checkpoints: Sequence[Checkpoint],
    first: int,
    second: int,
    workspaces: tuple[Workspace, Workspace],
) -> bool:
    elements = torch.Size(tensor.shape).numel()
    for start in range(0, elements, PIECE):
        stop = min(elements, start + PIECE)
        left, right = (
            workspace.read(checkpoints[index], tensor.renames.get(index, tensor.name), start, stop).view(torch.uint8)
            for workspace, index in zip(workspaces, (first, second), strict=True)
        )
        if not torch.equal(left, right):
            return False
    return True


def _problem(tensor: TensorPlan, first: Checkpoint, second: Checkpoint) -> Problem:
    quantised = scheme(first) or scheme(second)
    kind = f"quantised weights ({quantised})" if quantised else f"{tensor.dtype} numbers"
    advice = "Dequantise the models first" if quantised else "Give every model the donor's tensor"
    return Problem(
        f"holds {kind}, which can only be taken over, and '{second.name}' differs from '{first.name}'. {advice}.",
        second.place,
        tensor.name,
    )
