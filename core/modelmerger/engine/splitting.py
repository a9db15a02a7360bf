"""The terms of merged tensors: what the strategy splits its merge into, so that others may weigh it anew."""

from typing import TYPE_CHECKING

from modelmerger.engine.arithmetic import COMPUTE, Workspace, are_finite, raise_nonfinite
from modelmerger.engine.cancelling import never
from modelmerger.engine.measuring import Measurer
from modelmerger.engine.merge import Merge
from modelmerger.engine.strategy_inputs import slice_inputs
from modelmerger.planning.slices import slices
from modelmerger.values.strategies.terms import Terms

if TYPE_CHECKING:
    from torch import Tensor


def split_tensor(merge: Merge, index: int) -> Terms | None:
    """The terms of a tensor that the strategy merges; None where it says none. It is read as a whole.

    Raises `NumericError` for inputs that are not finite, `PluginError` for terms that are none.
    """
    plan, strategy = merge.plan.tensors[index], merge.hooks.strategy
    if not strategy.splits or strategy.finishes(merge.settings.strategy_options, merge.plan.updates):
        return None  # what is finished is no longer the sum
    workspace = Workspace(merge.device)
    (part,) = slices(plan, 0, plan.elements, plan.elements)
    inputs: list[Tensor] = []
    for number in plan.inputs:
        values = workspace.tensor(f"input {number}", plan.elements, COMPUTE[plan.compute])
        values.copy_(workspace.read(merge.checkpoints[number], plan.name_in(number), 0, plan.elements))
        inputs.append(values.view(part.shape))
    if not merge.settings.options.allow_nonfinite and not are_finite(inputs):
        raise_nonfinite(plan, merge, rounded=False)
    if strategy.traits.inputs == "updates":
        inputs = [values.sub_(inputs[-1]) for values in inputs[:-1]]
    if not any(number < len(merge.settings.models) for number in plan.inputs):
        return Terms((), lambda *_: ())  # no model has a weight, so the base is what is left
    measured = [total.to(workspace.device) for total in Measurer(merge).measure_all(index, workspace, never)]
    return strategy.split_tensor(slice_inputs(merge, plan, inputs, [(0, plan.elements)]), measured)
