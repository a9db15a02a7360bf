"""The check of strategies that split their merge into terms."""

import torch

from modelmerger.engine.merge import Merge
from modelmerger.engine.splitting import split_tensor
from modelmerger.testing.checks.check import assert_close, works
from modelmerger.testing.checks.strategy import StrategyUnderTest
from modelmerger.testing.merging import Planned
from modelmerger.values.strategies.terms import Terms
from modelmerger.values.tensor_plan import TensorPlan


def check_terms(strategy: StrategyUnderTest) -> None:
    """The terms of `split_tensor` add up to what `merge_tensor` makes, at these weights and at others.

    For strategies with that hook.
    """
    given, what = strategy.inputs(), f"{strategy.name}: a sum of the terms of split_tensor"
    split = strategy.plan(given, what, [1.0, 0.75, 0.5, 0.25][: strategy.count])
    with works(what):
        found = _terms(split)
    for weights in ([1.0, 0.75, 0.5, 0.25], [0.25, 1.5, 0.75, 1.0]):
        planned = strategy.plan(given, what, weights[: strategy.count])
        with works(what):
            merged = planned.merge()
            base = given.base if strategy.traits.wants_base else None
            sums = {
                tensor.name: _sum(found[tensor.name], tensor) + (base[tensor.name].double() if base else 0)
                for tensor in planned.plan.tensors
                if tensor.name in found
            }
        sentence = (
            f"{what}, weighed for the weights {weights[: strategy.count]}, must be what merge_tensor makes with them. "
            "Give back None where the weights have a part in the terms."
        )
        assert_close(sums, {name: merged[name] for name in sums}, sentence)


def _terms(planned: Planned) -> dict[str, Terms]:
    merge = Merge(planned.plan, planned.checkpoints, planned.hooks, planned.settings)
    split = {
        tensor.name: split_tensor(merge, index)
        for index, tensor in enumerate(planned.plan.tensors)
        if tensor.action == "merge"
    }
    return {name: terms for name, terms in split.items() if terms is not None}


def _sum(found: Terms, tensor: TensorPlan) -> torch.Tensor:
    """Σ cᵢ·termᵢ, float64, in the tensor's shape."""
    total = torch.zeros(tensor.shape, dtype=torch.float64)
    weights = [weight for weight in tensor.weights if weight]
    told = [own for own, weight in zip(tensor.model_options, tensor.weights, strict=True) if weight]
    for coefficient, term in zip(found.weigh(weights, told, tensor.options), found.terms, strict=True):
        made = term if isinstance(term, torch.Tensor) else term[0].double() @ term[1].double()
        total += coefficient * made.double().reshape(tensor.shape)
    return total
