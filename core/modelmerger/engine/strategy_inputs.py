"""The arguments of a strategy for a slice, which are the same for measuring and for merging."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelmerger.engine.merge import Merge
from modelmerger.engine.randomness import ElementNumbers
from modelmerger.hooks.strategy_arguments import SliceInputs
from modelmerger.values.tensor_plan import TensorPlan

if TYPE_CHECKING:
    from torch import Tensor


def slice_inputs(
    merge: Merge, plan: TensorPlan, tensors: Sequence["Tensor"], runs: Sequence[tuple[int, int]]
) -> SliceInputs:
    """Elements of a tensor as the strategy gets them. tensors: those elements of the inputs. runs: ranges of them."""
    models = [i for i in plan.inputs if i < len(merge.settings.models)]
    shape = tuple(tensors[0].shape)
    return SliceInputs(
        tensors=tensors,
        inputs=plan.inputs[: len(tensors)],
        weights=[plan.weights[i] for i in models],
        model_options=[plan.model_options[i] for i in models],
        options=plan.options,
        tensor_name=plan.name,
        shape=plan.shape,
        offset=runs[0][0],
        random=ElementNumbers(merge.settings.options.seed, plan.name, runs, shape, tensors[0].device, models),
    )
