"""Checks of strategies: laws that follow from how a strategy speaks, and those that it promises."""

import torch

from modelmerger.engine.merge import Merge
from modelmerger.engine.strategy_inputs import slice_inputs
from modelmerger.hooks.strategy_arguments import Measured
from modelmerger.planning.measured import Wanted, told_of, whole_rows
from modelmerger.testing.checks.check import Tensors, assert_close, works
from modelmerger.testing.checks.strategy import Inputs, StrategyUnderTest, drawn
from modelmerger.testing.merging import Planned
from modelmerger.values.tensor_plan import TensorPlan


def check_permutation(strategy: StrategyUnderTest) -> None:
    """Models in another order, each with its weight, give the same.

    For strategies of several models, unless they declare `Traits(ordered=True)` or draw random numbers, which belong to
    the place of a model.
    """
    given, what = strategy.inputs(), f"{strategy.name}: a merge of the models in another order"
    weights = [1.0, 0.75, 0.5, 0.25][: strategy.count]
    merged = strategy.merge(given, what, weights)
    turned = strategy.merge(Inputs(given.models[::-1], given.base), what, weights[::-1])
    sentence = (
        f"{what}, each with its weight, must give the same. Where the order counts, declare Traits(ordered=True)."
    )
    assert_close(turned, merged, sentence, 1e-4)


def check_linearity(strategy: StrategyUnderTest) -> None:
    """The merge of sums is the sum of the merges.

    For strategies that say coefficients from the weights alone, and others that promise "linearity".
    """
    first, what = strategy.inputs(), f"{strategy.name}: a merge of sums of models"
    second = Inputs([drawn(90 + i) for i in range(strategy.count)], drawn(80) if strategy.traits.wants_base else None)
    both = Inputs(
        [{name: a[name] + b[name] for name in a} for a, b in zip(first.models, second.models, strict=True)],
        first.base and second.base and {name: first.base[name] + second.base[name] for name in first.base},
    )
    parts = strategy.merge(first, what), strategy.merge(second, what)
    due = {name: parts[0][name] + parts[1][name] for name in parts[0]}
    sentence = (
        f"{what} must be the sum of the merges. A strategy that is not linear merges slices with merge_tensor, and "
        "nothing but options changes what is merged afterwards."
    )
    assert_close(strategy.merge(both, what), due, sentence)


def check_homogeneity(strategy: StrategyUnderTest) -> None:
    """Models that are multiplied by a number give the merge multiplied by it, also where they are small.

    For strategies that say coefficients from the weights alone, and others that promise "homogeneity".
    """
    given, what = strategy.inputs(), f"{strategy.name}: a merge of models that are scaled by a number"
    merged = strategy.merge(given, what)
    for factor in (4.0, 2.0**-20):
        scaled = Inputs([_times(model, factor) for model in given.models], given.base and _times(given.base, factor))
        sentence = (
            f"{what} must be the scaled merge; the number is {factor:g}. Compare with what is measured, and not with "
            "a fixed threshold."
        )
        assert_close(strategy.merge(scaled, what), _times(merged, factor), sentence)


def check_measurements_add_up(strategy: StrategyUnderTest) -> None:
    """What `measure_tensor` finds in two parts of a tensor makes up what it finds in the whole, in every round.

    Parts are added up, or joined by `join_measurements`. With `choose_ranges`, the whole is what the round wants.

    For strategies with that hook.
    """
    what = f"{strategy.name}: measuring a tensor in two parts"
    planned = strategy.plan(strategy.inputs(shapes={"model.layers.0.weight": (16, 24)}), what)
    (plan,) = planned.plan.tensors
    sums: list[torch.Tensor] = []
    for number in range(plan.rounds):
        with works(what):
            told = told_of(plan, range(len(planned.settings.models)))
            chosen = planned.hooks.strategy.choose_ranges(told, number, sums, whole_rows(plan))
            wanted = Wanted.of(plan, chosen)
            end, row = wanted.elements, whole_rows(plan)
            whole = _measured(planned, plan, wanted.between(0, end), sums)
            middle = end if plan.granularity == "whole" else end // 2 // row * row
            parts = [_measured(planned, plan, wanted.between(*part), sums) for part in ((0, middle), (middle, end))]
            found = _made_up(planned, told, [part for part in parts if part is not None], sums)
        sentence = (
            f"{what} must give statistics that add up to those of the whole (round {number}), or that "
            "join_measurements joins to them. Return sums, counts or histograms of the block; divide when they are "
            "used, not here."
        )
        if whole is None or not isinstance(found, torch.Tensor):
            if whole is not None or isinstance(found, torch.Tensor):
                raise AssertionError(sentence)
            return
        assert_close({"the statistic": found}, {"the statistic": whole}, sentence, 1e-9)
        sums.append(whole)


def _times(model: Tensors, factor: float) -> dict[str, torch.Tensor]:
    return {name: tensor * factor for name, tensor in model.items()}


def _made_up(
    planned: Planned, told: Measured, parts: list[torch.Tensor], sums: list[torch.Tensor]
) -> torch.Tensor | None:
    """One statistic of those that were measured; None where there is none."""
    strategy = planned.hooks.strategy
    if len(parts) > 1 and strategy.joins and (joined := strategy.join_measurements(told, parts, sums)) is not None:
        return joined
    return torch.stack(parts).sum(dim=0) if parts else None


def _measured(
    planned: Planned, plan: TensorPlan, runs: list[tuple[int, int]], sums: list[torch.Tensor]
) -> torch.Tensor | None:
    """What the strategy measures in some elements of a tensor, which the engine would hand it in this form."""
    strategy = planned.hooks.strategy
    stored = []
    for number in plan.inputs if runs else ():
        checkpoint = planned.checkpoints[number]
        buffer = bytearray(checkpoint.tensors[plan.name].bytes)
        checkpoint.read(plan.name, 0, plan.elements, memoryview(buffer))
        values = torch.frombuffer(buffer, dtype=torch.float32).double()
        stored.append(torch.cat([values[start:stop] for start, stop in runs]))
    if not stored:
        return None
    if strategy.traits.inputs == "updates":
        stored = [tensor - stored[-1] for tensor in stored[:-1]]
    if plan.granularity != "elementwise":
        stored = [tensor.view(-1, plan.shape[-1]) for tensor in stored]
    merge = Merge(planned.plan, planned.checkpoints, planned.hooks, planned.settings)
    return strategy.measure_tensor(slice_inputs(merge, plan, stored, runs), sums)
