"""Makes the slices of a tensor, from the inputs' bytes to the output's: read, merge, check, finish, round once."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NoReturn

import torch
from attrs import field, frozen

from modelmerger.engine.arithmetic import (
    COMPUTE,
    Workspace,
    are_finite,
    combine_into,
    extremes,
    factors,
    has_finite_sum,
    overflows,
    raise_nonfinite,
    sum_into,
)
from modelmerger.engine.compiling import compile_function
from modelmerger.engine.measuring import Measurer
from modelmerger.engine.merge import Merge
from modelmerger.engine.strategy_inputs import slice_inputs
from modelmerger.inputs.torch_dtypes import torch_dtype
from modelmerger.planning.slices import Slice
from modelmerger.values.dtypes import DTYPES

if TYPE_CHECKING:
    from torch import Tensor


NO_TOTALS: "Mapping[int, Sequence[Tensor]]" = MappingProxyType({})
Observed = dict[str, dict[str, float]]
"""Tensor → statistic → sum."""


class UnitState:
    """What one unit of work carries from slice to slice: counts, observations, and the tensor that it is in.

    totals: what was measured, one sum a round, by the index of the tensor in the plan.
    """

    def __init__(self, totals: "Mapping[int, Sequence[Tensor]]" = NO_TOTALS) -> None:
        self.totals = totals
        self.counts: dict[str, int] = {}
        self.observed: Observed = {}
        self.tensor: TensorMerger | None = None

    def count(self, found: Mapping[str, int]) -> None:
        """Adds to the counts."""
        for key, value in found.items():
            self.counts[key] = self.counts.get(key, 0) + value

    def observe(self, tensor: str, found: Mapping[str, float]) -> None:
        """Adds to the sums of a tensor."""
        sums = self.observed.setdefault(tensor, {})
        for key, value in found.items():
            sums[key] = sums.get(key, 0) + value

    def take(self) -> tuple[dict[str, int], Observed]:
        """What was counted and observed since the last call."""
        taken = self.counts, self.observed
        self.counts, self.observed = {}, {}
        return taken


@frozen(eq=False, repr=False)
class SliceMerger:
    """Makes the bytes of any tensor of the plan. Safe from several threads, each with its own workspace."""

    merge: Merge
    """What is carried out."""
    measurer: Measurer
    """What knows the coefficients that follow from a measurement."""
    observers: frozenset[str] = field(init=False)
    """The plugins that observe slices."""
    finishes: bool = field(init=False)
    """Whether the strategy's `finish_tensor` is called."""
    compiled_sum: "Callable[[Sequence[Tensor], Tensor, Tensor], None] | None" = field(init=False)
    """`sum_into`, compiled; None without `torch_compile`."""

    @observers.default
    def _find_observers(self) -> frozenset[str]:
        return frozenset() if self.merge.plan.composed else self.merge.hooks.observers.wanted(self.merge.settings)

    @finishes.default
    def _find_finishes(self) -> bool:
        merge = self.merge
        return merge.hooks.strategy.finishes(merge.settings.strategy_options, merge.plan.updates)

    @compiled_sum.default
    def _compile(self) -> "Callable[[Sequence[Tensor], Tensor, Tensor], None] | None":
        return compile_function(sum_into) if self.merge.settings.options.torch_compile else None

    def tensor(self, index: int, state: UnitState) -> "TensorMerger":
        """What makes the slices of one tensor."""
        if state.tensor is None or state.tensor.index != index:
            state.tensor = None  # frees a tensor that was merged whole before the next one comes
            state.tensor = TensorMerger(self, index, state.totals.get(index, ()))
        return state.tensor


class TensorMerger:
    """Makes the bytes of any slice of one tensor. What is the same for all slices is looked up once.

    measurements: the sums of the tensor's statistic, one a round.
    """

    def __init__(self, merger: SliceMerger, index: int, measurements: "Sequence[Tensor]") -> None:
        self.index = index
        merge = merger.merge
        self.plan = tensor = merge.plan.tensors[index]
        self.bits = DTYPES[tensor.dtype].bits
        self._of = merger
        self._merge, self._strategy = merge, merge.hooks.strategy
        self._inputs = {i: (merge.checkpoints[i], tensor.name_in(i)) for i in tensor.inputs}
        self._check = not merge.settings.options.allow_nonfinite
        self._check_inputs = self._check and not merger.measurer.has_read(index, measurements)
        self._finishes = merger.finishes and tensor.action != "take"
        self._as_stored = tensor.action == "copy" or self._keeps_bits()
        self._measurements = measurements
        self._whole: Tensor | None = None
        if self._as_stored:
            return
        self._dtype = torch_dtype(tensor.dtype)
        self._compute = COMPUTE[tensor.compute]
        self._terms: Sequence[int] | None = None  # the inputs that are added up; None where the strategy merges them
        if tensor.action != "merge":
            coefficients = tensor.coefficients or merger.measurer.coefficients(index, measurements[0])
            self._terms = [i for i, c in zip(tensor.inputs, coefficients, strict=True) if c != 0]
            self._coefficients = torch.tensor([c for c in coefficients if c != 0], dtype=self._compute)
            self._factors = factors(self._coefficients)

    def write_slice(self, part: Slice, out: "Tensor", workspace: Workspace, state: UnitState) -> None:
        """Fills `out`, a vector of bytes, with the slice as written. Raises `NumericError` for NaN and infinity."""
        if self._as_stored:
            out.copy_(self._read(self.plan.inputs[0], part, workspace).view(out.dtype))
            return
        if self._terms is None:
            merged = self._merged(part, workspace, state)
        else:
            merged = self._combined(self._terms, part, workspace, state)
        if self._finishes:
            self._finish(merged, state)
        written = out.view(self._dtype)
        written.copy_(merged)
        if self._check and not has_finite_sum(written):
            low, high = extremes(merged)
            if not (math.isfinite(low) and math.isfinite(high)):
                self._raise_nonfinite()
            if overflows(low, high, written, self.plan.dtype):
                raise_nonfinite(self.plan, self._merge, rounded=True)

    def _finish(self, merged: "Tensor", state: UnitState) -> None:
        strategy, name = self._strategy, self.plan.name
        if self._check and not are_finite([merged]):
            self._raise_nonfinite()
        state.count(strategy.finish_tensor(merged, self.plan.options, name))
        if self._check and not are_finite([merged]):
            raise strategy.nonfinite_error("finish_tensor", name)

    def _raise_nonfinite(self) -> NoReturn:
        if self._terms is None:  # the inputs were checked before the strategy got them
            raise self._strategy.nonfinite_error("merge_tensor", self.plan.name)
        raise_nonfinite(self.plan, self._merge, rounded=False)

    def _keeps_bits(self) -> bool:
        """Whether the tensor is one input, unchanged, and NaN may pass: arithmetic would change the bits of a NaN."""
        if self._check or self.plan.coefficients != (1.0,) or self._finishes or self._of.observers:
            return False
        checkpoint, name = self._inputs[self.plan.inputs[0]]
        return checkpoint.tensors[name].dtype == self.plan.dtype

    def _combined(self, terms: Sequence[int], part: Slice, workspace: Workspace, state: UnitState) -> "Tensor":
        """Σ coefficient · input as a vector."""
        total = workspace.tensor("total", part.stop - part.start, self._compute)
        if self._of.observers:
            inputs = {i: self._input(i, part, workspace) for i in self.plan.inputs}
            self._add_up((inputs[i] for i in terms), total, workspace)
            self._observe(list(inputs.values()), total, state)
        elif self._of.compiled_sum is not None:
            self._add_up((self._read(i, part, workspace, f"raw {i}") for i in terms), total, workspace)
        else:
            self._add_up((self._read(i, part, workspace) for i in terms), total, workspace)
        return total

    def _add_up(self, inputs: "Iterable[Tensor]", total: "Tensor", workspace: Workspace) -> None:
        if self._of.compiled_sum is None:
            combine_into(self._factors, inputs, total, workspace.tensor("term", len(total), self._compute))
        else:
            there = [values.to(workspace.device) for values in inputs]
            self._of.compiled_sum(there, self._coefficients.to(workspace.device), total)

    def _merged(self, part: Slice, workspace: Workspace, state: UnitState) -> "Tensor":
        """The wanted elements of what the strategy's `merge_tensor` makes of the slice, as a vector."""
        of, tensor = self._of, self.plan
        if self._whole is not None:
            return self._whole[part.start : part.stop].clone()
        inputs = [self._input(i, part, workspace) for i in tensor.inputs]
        if self._check_inputs and not are_finite(inputs):
            raise_nonfinite(tensor, self._merge, rounded=False)
        base = inputs[-1] if self._strategy.traits.inputs == "updates" else None
        told = inputs if base is None else self._updates(inputs, base)
        measured = [total.to(workspace.device) for total in self._measurements]
        if told:
            given = slice_inputs(self._merge, tensor, told, [(part.first, part.last)])
            merged = self._strategy.merge_tensor(given, measured)
            flat = (merged if base is None else merged.add_(base)).reshape(-1)
        else:  # no model has a weight, so the base is what is left
            flat = inputs[-1].reshape(-1).clone()
        wanted = slice(part.start - part.first, part.stop - part.first)
        whole = tensor.granularity == "whole"
        if whole:
            self._whole = flat
            flat = flat.clone()
        if of.observers:  # a row that lies in two blocks is made twice, and must not be counted twice
            seen = slice(None) if whole else wanted
            self._observe([values.reshape(-1)[seen] for values in inputs], flat[seen], state)
        return flat[wanted]

    def _updates(self, inputs: "Sequence[Tensor]", base: "Tensor") -> "list[Tensor]":
        """What the models change of the base: in place of the inputs, unless somebody observes these."""
        if self._of.observers:
            return [values - base for values in inputs[:-1]]
        return [values.sub_(base) for values in inputs[:-1]]

    def _observe(self, inputs: Sequence["Tensor"], merged: "Tensor", state: UnitState) -> None:
        arguments = inputs, merged, self.plan.name, self.plan.inputs, self._merge.settings
        state.observe(self.plan.name, self._merge.hooks.observers.observe(self._of.observers, *arguments))

    def _input(self, i: int, part: Slice, workspace: Workspace) -> "Tensor":
        """An input in memory of its own, in the dtype of the arithmetic and the shape that the strategy sees."""
        values = workspace.tensor(f"input {i}", part.last - part.first, self._compute)
        values.copy_(self._read(i, part, workspace))
        return values.view(part.shape)

    def _read(self, i: int, part: Slice, workspace: Workspace, purpose: str = "raw") -> "Tensor":
        if (kept := self._of.measurer.kept) is not None and self._measurements:
            return kept.merged(self.index, i, part.first, part.last, workspace, purpose)
        checkpoint, name = self._inputs[i]
        return workspace.read(checkpoint, name, part.first, part.last, purpose)
