"""Statistics of tensors over fixed blocks: the Gram matrix of the inputs, or what a strategy measures in rounds."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from attrs import field, frozen

from modelmerger.engine.arithmetic import COMPUTE, Workspace, are_finite, gram_of, raise_nonfinite
from modelmerger.engine.cancelling import Cancelled, CancelledError
from modelmerger.engine.merge import Merge
from modelmerger.engine.reading.ahead import read_ahead
from modelmerger.engine.statistics import Join, OrderedSum, UnsteadyError, sum_in_order
from modelmerger.engine.strategy_inputs import slice_inputs
from modelmerger.hooks.arguments.of_strategies import Measured
from modelmerger.planning.cost import rounds_of
from modelmerger.planning.measured import Wanted, block_length, told_of, whole_rows
from modelmerger.planning.slices import row_length
from modelmerger.values.errors import NumericError, Problem
from modelmerger.values.tensor_plan import TensorPlan
from modelmerger.values.work.units import Unit

if TYPE_CHECKING:
    from torch import Tensor

    from modelmerger.engine.reading.kept import KeptInputs

BLOCKS_A_UNIT = 32
"""Blocks of a tensor that one unit measures."""
CHOSEN = 64
"""Rounds of tensors of which it is kept what they read."""


def measured_blocks(tensor: TensorPlan) -> int:
    """Over how many blocks a statistic of this tensor is taken, at most."""
    return -(-tensor.elements // block_length(tensor))


def measuring_units(index: int, tensor: TensorPlan, rounds: int) -> Iterator[Unit]:
    """The units that measure a tensor, round by round."""
    blocks = measured_blocks(tensor)
    for number in range(rounds):
        needs = (index,) if number else ()
        for first in range(0, blocks, BLOCKS_A_UNIT):
            yield Unit("measure", index, first, min(blocks, first + BLOCKS_A_UNIT), needs, number)


@frozen(eq=False, repr=False)
class Measurer:
    """Takes the statistics of a merge. Safe from several threads, each with its own workspace."""

    merge: Merge
    """What is carried out."""
    kept: "KeptInputs | None" = None
    """What keeps inputs for when they are merged; None where everything is read again."""
    _coefficients: dict[int, tuple[float, ...]] = field(factory=dict)
    _chosen: dict[tuple[int, int], Wanted] = field(factory=dict)

    def rounds(self, index: int) -> int:
        """How often a tensor of the plan is measured before it is merged, at most."""
        return rounds_of(self.merge.plan.tensors[index])

    def has_read(self, index: int, totals: Sequence["Tensor"]) -> bool:
        """Whether a round of a tensor has read all of its inputs, and so has found them finite. totals: one a round."""
        tensor = self.merge.plan.tensors[index]
        rounds = (self._wanted(index, number, totals[:number]) for number in range(len(totals)))
        return any(wanted.elements == tensor.elements for wanted in rounds)

    def read_again(self, index: int, start: int, stop: int) -> Iterable[tuple[int, int]]:
        """The ranges between two elements of a tensor that are read, as they are not kept since they were measured."""
        return [(start, stop)] if self.kept is None else self.kept.missing(index, start, stop)

    def read_ahead(self, unit: Unit, earlier: Sequence["Tensor"]) -> None:
        """Says that a unit will be measured next. earlier: as in `measure`."""
        tensor = self.merge.plan.tensors[unit.of]
        length, wanted = block_length(tensor), self._wanted(unit.of, unit.round, earlier)
        if len(wanted.runs) > 1:  # what is read ahead takes 4 MiB, however short it is
            return
        for wanted_range in wanted.between(unit.first * length, unit.last * length):
            for start, stop in self.read_again(unit.of, *wanted_range):
                read_ahead(self.merge, tensor, start, stop)

    def measure(
        self, unit: Unit, earlier: Sequence["Tensor"], workspace: Workspace, cancelled: Cancelled
    ) -> "Tensor | None":
        """The statistic of a unit's blocks; None where the strategy has nothing to measure in this round.

        earlier: the totals of the rounds before. Raises `CancelledError`.
        """
        tensor = self.merge.plan.tensors[unit.of]
        length, wanted = block_length(tensor), self._wanted(unit.of, unit.round, earlier)
        elements = wanted.elements

        def block(number: int) -> "Tensor | None":
            if cancelled():
                raise CancelledError
            runs = wanted.between(number * length, (number + 1) * length)
            return self._block(unit.of, runs, earlier, workspace)

        join = self.joining(unit.of, earlier)
        try:
            return sum_in_order(unit.first, min(unit.last, -(-elements // length)), block, join)
        except UnsteadyError as error:
            raise self.merge.hooks.strategy.unsteady_measure_error(tensor.name, str(error)) from None

    def joining(self, index: int, earlier: Sequence["Tensor"]) -> Join | None:
        """What makes one statistic of several in the next round of a tensor; None where they are added up.

        earlier: the totals of the rounds before.
        """
        strategy = self.merge.hooks.strategy
        tensor = self.merge.plan.tensors[index]
        if not strategy.joins or tensor.action == "combine":
            return None
        return lambda parts: strategy.join_measurements(self._told(tensor), parts, earlier)

    def _told(self, tensor: TensorPlan) -> Measured:
        return told_of(tensor, [i for i in tensor.inputs if i < len(self.merge.settings.models)])

    def _wanted(self, tensor: int, number: int, earlier: Sequence["Tensor"]) -> Wanted:
        """What a round measures of a tensor, which is asked for once a unit or more. tensor: its index in the plan."""
        if (known := self._chosen.get((tensor, number))) is not None:
            return known
        plan, ranges = self.merge.plan.tensors[tensor], None
        if plan.action != "combine":
            strategy = self.merge.hooks.strategy
            ranges = strategy.choose_ranges(self._told(plan), number, earlier, whole_rows(plan))
        if len(self._chosen) >= CHOSEN:
            self._chosen.clear()
        wanted = self._chosen[tensor, number] = Wanted.of(plan, ranges)
        return wanted

    def measure_all(self, index: int, workspace: Workspace, cancelled: Cancelled) -> list["Tensor"]:
        """The totals of a tensor, one a round: the same bits as when its units are shared out."""
        totals: list[Tensor] = []
        tensor, rounds = self.merge.plan.tensors[index], self.rounds(index)
        units = list(measuring_units(index, tensor, rounds))
        for number in range(rounds):
            summed = OrderedSum(len(units) // rounds, self.joining(index, totals))
            try:
                for part, unit in enumerate(unit for unit in units if unit.round == number):
                    self.read_ahead(unit, totals)
                    summed.add(part, self.measure(unit, totals, workspace, cancelled))
                total = summed.total
            except UnsteadyError as error:
                raise self.merge.hooks.strategy.unsteady_measure_error(tensor.name, str(error)) from None
            if total is None:
                break
            totals.append(total)
        return totals

    def coefficients(self, index: int, gram: "Tensor") -> tuple[float, ...]:
        """The strategy's coefficients for a tensor, from the Gram matrix of its inputs.

        Raises `NumericError` where the matrix is not finite, or every coefficient is zero.
        """
        if (known := self._coefficients.get(index)) is not None:
            return known
        tensor = self.merge.plan.tensors[index]
        if not torch.isfinite(gram).all():
            remedy = "Repair the model: the coefficients follow from all of its values"
            raise_nonfinite(tensor, self.merge, rounded=False, remedy=remedy)
        found = self.merge.hooks.strategy.find_coefficients(
            tensor.weights,
            tensor.model_options,
            tensor.options,
            gram.tolist(),
            tensor.shape,
            tensor.name,
        )
        if found is None:
            raise AssertionError("a strategy's coefficients are known once the Gram matrix is")
        if not any(found):
            message = "every coefficient of this tensor is zero, so nothing would be left of it."
            raise NumericError(Problem(message, tensor=tensor.name))
        self._coefficients[index] = found
        return found

    def _block(
        self, index: int, runs: Sequence[tuple[int, int]], earlier: Sequence["Tensor"], workspace: Workspace
    ) -> "Tensor | None":
        tensor = self.merge.plan.tensors[index]
        strategy = self.merge.hooks.strategy
        gram = tensor.action == "combine"
        inputs = [self._input(index, number, runs, workspace) for number in tensor.inputs]
        if not gram and not self.merge.settings.options.allow_nonfinite and not are_finite(inputs):
            raise_nonfinite(tensor, self.merge, rounded=False)
        if strategy.traits.inputs == "updates":
            inputs = [values.sub_(inputs[-1]) for values in inputs[:-1]]
        if gram:
            return gram_of(inputs)
        shape = (-1, row_length(tensor)) if tensor.granularity == "rowwise" else (-1,)
        inputs = [values.view(shape) for values in inputs]
        told = [total.to(workspace.device) for total in earlier]
        found = strategy.measure_tensor(slice_inputs(self.merge, tensor, inputs, runs), told)
        return None if found is None else found.cpu()

    def _input(self, index: int, number: int, runs: Sequence[tuple[int, int]], workspace: Workspace) -> "Tensor":
        """Some elements of an input, laid end to end, in the dtype of the arithmetic."""
        tensor = self.merge.plan.tensors[index]
        dtype = torch.float64 if tensor.action == "combine" else COMPUTE[tensor.compute]
        if self.kept is None or len(runs) > 1:  # whole blocks are kept, and no parts of them
            read = workspace.read_runs(self.merge.checkpoints[number], tensor.name_in(number), runs)
        else:
            read = self.kept.measured(index, number, *runs[0], workspace)
        values = workspace.tensor(f"input {number}", len(read), dtype)
        return values.copy_(read)
