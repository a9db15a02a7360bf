"""Statistics of whole tensors: measured over fixed blocks by many workers, and summed in a fixed order."""

import threading
from typing import TYPE_CHECKING

import torch

from modelmerger.engine.arithmetic import COMPUTE, Workspace, are_finite, gram_of, raise_nonfinite
from modelmerger.engine.merge import Merge
from modelmerger.engine.strategy_inputs import slice_inputs
from modelmerger.planning.slices import MEASURED, row_length
from modelmerger.values.errors import NumericError, Problem
from modelmerger.values.plan import TensorPlan
from modelmerger.values.units import Unit

if TYPE_CHECKING:
    from torch import Tensor


class CancelledError(Exception):
    """The merge ended while a worker waited."""


def measured_blocks(tensor: TensorPlan) -> int:
    """Over how many blocks a statistic of this tensor is taken."""
    elements = tensor.elements
    return -(-elements // _block_length(tensor))


def _block_length(tensor: TensorPlan) -> int:
    """Elements in a block: whole rows for a rowwise strategy."""
    if tensor.granularity != "rowwise":
        return MEASURED
    row = row_length(tensor)
    return max(1, MEASURED // row) * row


class Measurements:
    """The statistics of one merge. Safe from several threads; each block is measured once."""

    def __init__(
        self,
        merge: Merge,
        cancelled: threading.Event,
    ) -> None:
        self._merge = merge
        self._plan = merge.plan
        self._strategy = merge.hooks.strategy
        self._settings = merge.settings
        self._cancelled = cancelled
        self._lock = threading.Lock()
        self._partial: dict[int, dict[int, Tensor]] = {}
        self._total: dict[int, Tensor] = {}
        self._coefficients: dict[int, tuple[float, ...]] = {}
        self._changed = threading.Condition(self._lock)

    def measures(self, index: int) -> bool:
        """Whether a tensor of the plan is measured before it is merged."""
        tensor = self._plan.tensors[index]
        if tensor.action == "combine":
            return tensor.coefficients is None
        return tensor.action == "merge" and self._strategy.measures

    def measure(self, unit: Unit, workspace: Workspace) -> None:
        """Measures some blocks of a tensor."""
        tensor = self._plan.tensors[unit.of]
        length = _block_length(tensor)
        elements = tensor.elements
        for block in range(unit.first, unit.last):
            if self._cancelled.is_set():
                break
            start, stop = block * length, min(elements, (block + 1) * length)
            partial = self._block(tensor, start, stop, workspace)
            self._store(unit.of, block, partial, -(-elements // length))

    def result(self, index: int) -> "Tensor":
        """Waits until all blocks of a tensor are measured, and returns its statistic. Raises `CancelledError`."""
        with self._changed:
            while index not in self._total:
                if self._cancelled.is_set():
                    raise CancelledError
                self._changed.wait(0.1)
            return self._total[index]

    def coefficients(self, index: int) -> tuple[float, ...]:
        """The strategy's coefficients for a tensor, from the Gram matrix of its inputs. Waits for that.

        Raises `NumericError` where the matrix is not finite, or every coefficient is zero.
        """
        if (known := self._coefficients.get(index)) is not None:
            return known
        tensor = self._plan.tensors[index]
        gram = self.result(index)
        if not torch.isfinite(gram).all():
            remedy = "Repair the model: the coefficients follow from all of its values"
            raise_nonfinite(tensor, self._merge, rounded=False, remedy=remedy)
        found = self._strategy.find_coefficients(
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

    def _block(self, tensor: TensorPlan, start: int, stop: int, workspace: Workspace) -> "Tensor":
        gram = tensor.action == "combine"
        dtype = torch.float64 if gram else COMPUTE[tensor.compute]
        inputs = []
        for index in tensor.inputs:
            values = workspace.tensor(f"measured {index}", stop - start, dtype)
            values.copy_(workspace.read(self._merge.checkpoints[index], tensor.name_in(index), start, stop))
            inputs.append(values)
        if not gram and not self._settings.options.allow_nonfinite and not are_finite(inputs):
            raise_nonfinite(tensor, self._merge, rounded=False)
        if self._strategy.traits.inputs == "updates":
            inputs = [values.sub_(inputs[-1]) for values in inputs[:-1]]
        if gram:
            return gram_of(inputs)
        shape = (-1, row_length(tensor)) if tensor.granularity == "rowwise" else (-1,)
        inputs = [values.view(shape) for values in inputs]
        return self._strategy.measure_tensor(slice_inputs(self._merge, tensor, inputs, start, stop)).cpu()

    def _store(self, index: int, block: int, partial: "Tensor", blocks: int) -> None:
        with self._changed:
            partials = self._partial.setdefault(index, {})
            other = next(iter(partials.values()), partial)
            if other.shape != partial.shape or other.dtype != partial.dtype:
                raise self._strategy.unsteady_measure_error(self._plan.tensors[index].name)
            partials[block] = partial
            if len(partials) == blocks:
                total = partials[0].clone()
                for number in range(1, blocks):
                    total += partials[number]
                self._total[index] = total
                del self._partial[index]
                self._changed.notify_all()
