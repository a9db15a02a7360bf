"""One slice of one tensor, from the inputs' bytes to the output's: read, merge, check, finish, round once."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

import torch
from attrs import field, frozen

from modelmerger.arithmetic import (
    COMPUTE,
    Workspace,
    are_finite,
    combined,
    extremes,
    has_finite_sum,
    overflows,
    raise_nonfinite,
    summed,
)
from modelmerger.checkpoint import Checkpoint
from modelmerger.compiling import compiled
from modelmerger.dtypes import torch_dtype
from modelmerger.hooks import Hooks
from modelmerger.measuring import Measurements
from modelmerger.plan import MergePlan, TensorPlan
from modelmerger.settings import Settings
from modelmerger.slices import Slice

if TYPE_CHECKING:
    from torch import Tensor


Observed = dict[str, dict[str, float]]


class BlockState:
    """What one unit of work carries from slice to slice: counts and observations, and the whole tensor that it is in."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.observed: Observed = {}
        self.whole: dict[int, Tensor] = {}

    def count(self, found: Mapping[str, int]) -> None:
        for key, value in found.items():
            self.counts[key] = self.counts.get(key, 0) + value

    def observe(self, tensor: str, found: Mapping[str, float]) -> None:
        sums = self.observed.setdefault(tensor, {})
        for key, value in found.items():
            sums[key] = sums.get(key, 0) + value

    def take(self) -> tuple[dict[str, int], Observed]:
        """What was counted and observed since the last call."""
        taken = self.counts, self.observed
        self.counts, self.observed = {}, {}
        return taken

    def forget_all_but(self, index: int) -> None:
        self.whole = {number: tensor for number, tensor in self.whole.items() if number == index}


@frozen(eq=False)
class SliceMerger:
    """Makes the bytes of any slice of the plan; safe from several threads, each with its own workspace."""

    plan: MergePlan
    checkpoints: Sequence[Checkpoint]
    hooks: Hooks
    settings: Settings
    measurements: Measurements
    _observers: frozenset[str] = field(init=False)
    _compiled_sum: "Callable[[Sequence[Tensor], Tensor, Tensor], None] | None" = field(init=False)

    @_observers.default
    def _find_observers(self) -> frozenset[str]:
        return frozenset() if self.plan.updates else self.hooks.observers(self.settings)

    @_compiled_sum.default
    def _compile(self) -> "Callable[[Sequence[Tensor], Tensor, Tensor], None] | None":
        return compiled(summed) if self.settings.options.torch_compile else None

    def write_slice(self, index: int, piece: Slice, out: "Tensor", workspace: Workspace, state: BlockState) -> None:
        """Fills `out`, a vector of bytes, with the slice as it stands in the file. Raises `NumericError` for NaN and infinity."""
        tensor = self.plan.tensors[index]
        if tensor.action == "copy" or self._keeps_bits(tensor):
            out.copy_(self._read(index, tensor.inputs[0], piece, workspace).view(out.dtype))
            return
        merged = self._combined(index, piece, workspace, state)
        if merged is None:
            merged = self._merged(index, piece, workspace, state)
        check = not self.settings.options.allow_nonfinite
        if self._finishes(tensor):
            if check and not are_finite([merged]):
                self._raise_nonfinite(tensor)
            state.count(self.hooks.finish_tensor(merged, self.settings.strategy_options, tensor.name))
            if check and not are_finite([merged]):
                raise self.hooks.nonfinite("finish_tensor", tensor.name)
        written = out.view(torch_dtype(tensor.dtype))
        written.copy_(merged)
        if check and not has_finite_sum(written):
            low, high = extremes(merged)
            if not (math.isfinite(low) and math.isfinite(high)):
                self._raise_nonfinite(tensor)
            if overflows(low, high, written, tensor.dtype):
                raise_nonfinite(tensor, self.checkpoints, rounded=True)

    def _raise_nonfinite(self, tensor: TensorPlan) -> NoReturn:
        if tensor.action == "merge":  # the inputs were looked at before the strategy got them
            raise self.hooks.nonfinite("merge_tensor", tensor.name)
        raise_nonfinite(tensor, self.checkpoints, rounded=False)

    def _keeps_bits(self, tensor: TensorPlan) -> bool:
        """Whether NaN may pass and the tensor is one input as it is: arithmetic would change the bits of a NaN."""
        return (
            self.settings.options.allow_nonfinite
            and tensor.coefficients == (1.0,)
            and self.checkpoints[tensor.inputs[0]].tensors[tensor.renames.get(tensor.inputs[0], tensor.name)].dtype
            == tensor.dtype
            and not self._finishes(tensor)
            and not self._observers
        )

    def _finishes(self, tensor: TensorPlan) -> bool:
        return self.hooks.finishes and tensor.action != "take"

    def _combined(self, index: int, piece: Slice, workspace: Workspace, state: BlockState) -> "Tensor | None":
        """Σ coefficient · input as a vector; None for a tensor that the strategy merges itself."""
        tensor = self.plan.tensors[index]
        if tensor.action == "merge":
            return None
        coefficients = tensor.coefficients or self.measurements.coefficients(index)
        terms = [(c, i) for c, i in zip(coefficients, tensor.inputs, strict=True) if c != 0]
        elements, dtype = piece.stop - piece.start, COMPUTE[tensor.compute]
        total = workspace.tensor("total", elements, dtype)
        observed = [self._input(index, i, piece, workspace) for i in tensor.inputs] if self._observers else []
        held = dict(zip(tensor.inputs, observed, strict=False))

        def source(i: int, purpose: str = "raw") -> "Tensor":
            return held[i] if i in held else self._read(index, i, piece, workspace, purpose)

        if self._compiled_sum is not None:
            read = [source(i, f"raw {i}").to(workspace.device) for _, i in terms]
            factors = torch.tensor([c for c, _ in terms], dtype=dtype, device=workspace.device)
            self._compiled_sum(read, factors, total)
        else:
            combined(((c, source(i)) for c, i in terms), total, workspace.tensor("term", elements, dtype))
        if observed:
            self._observe(tensor, observed, total, state)
        return total

    def _merged(self, index: int, piece: Slice, workspace: Workspace, state: BlockState) -> "Tensor":
        """What the strategy's `merge_tensor` makes of the slice, as a vector of the wanted elements."""
        if index in state.whole:
            return state.whole[index][piece.start : piece.stop].clone()
        tensor = self.plan.tensors[index]
        inputs = [self._input(index, i, piece, workspace) for i in tensor.inputs]
        if not self.settings.options.allow_nonfinite and not are_finite(inputs):
            raise_nonfinite(tensor, self.checkpoints, rounded=False)
        models = [self.settings.models[i] for i in tensor.inputs if i < len(self.settings.models)]
        merged = self.hooks.merge_tensor(
            inputs,
            [tensor.weights[i] for i in tensor.inputs if i < len(self.settings.models)],
            [model.operation for model in models],
            self.settings.strategy_options,
            self.measurements.result(index).to(workspace.device) if self.measurements.wanted(index) else None,
            tensor.name,
        )
        flat = merged.reshape(-1)
        wanted = slice(piece.start - piece.first, piece.stop - piece.first)
        if self.plan.granularity == "whole":
            state.whole[index] = flat
            flat = flat.clone()
        if self._observers:  # a row that lies in two blocks is made twice, and must not be counted twice
            seen = slice(None) if self.plan.granularity == "whole" else wanted
            parts = [values.reshape(-1)[seen] for values in inputs]
            self._observe(tensor, parts, flat[seen], state)
        return flat[wanted]

    def _observe(self, tensor: TensorPlan, inputs: Sequence["Tensor"], merged: "Tensor", state: BlockState) -> None:
        arguments = inputs, merged, tensor.name, tensor.inputs, self.settings
        state.observe(tensor.name, self.hooks.observe_slice(self._observers, *arguments))

    def _input(self, index: int, checkpoint: int, piece: Slice, workspace: Workspace) -> "Tensor":
        """An input in the dtype of the arithmetic, in memory of its own, in the shape that the strategy sees."""
        values = workspace.tensor(
            f"input {checkpoint}", piece.last - piece.first, COMPUTE[self.plan.tensors[index].compute]
        )
        values.copy_(self._read(index, checkpoint, piece, workspace))
        return values.view(piece.shape)

    def _read(self, index: int, checkpoint: int, piece: Slice, workspace: Workspace, purpose: str = "raw") -> "Tensor":
        tensor = self.plan.tensors[index]
        name = tensor.renames.get(checkpoint, tensor.name)
        return workspace.read(self.checkpoints[checkpoint], name, piece.first, piece.last, purpose)
