"""Checks of strategies: what comes out for inputs whose answer is known, and for inputs that are hard."""

import torch

from modelmerger.testing.checks.check import Tensors, assert_close, assert_finite, assert_same, works
from modelmerger.testing.checks.strategy import SHAPES, Inputs, StrategyUnderTest, drawn
from modelmerger.values.errors import NumericError

ALL_SHAPES = {
    "scalar": (),
    "no_element": (0,),
    "no_rows": (0, 3),
    "no_columns": (3, 0),
    "one_element": (1,),
    "one_by_one": (1, 1),
    "one_row": (1, 5),
    "one_column": (5, 1),
    "four_dimensions": (3, 2, 2, 4),
}
"""Tensors by what is special about them."""
LARGE = 40_000.0
"""Near the largest float16, 65504, with room for what a strategy adds."""


def check_equal_models(strategy: StrategyUnderTest) -> None:
    """Equal models give that model.

    For strategies without a base, and others that promise "identity".
    """
    model, base = drawn(1), drawn(0) if strategy.traits.wants_base else None
    merged = strategy.merge(Inputs([model] * strategy.count, base), "a merge of equal models")
    sentence = (
        f"{strategy.name}: equal models must give that model, or the merge scales what all of them agree on. "
        "Divide by the sum of the weights, or whatever the models are multiplied by."
    )
    assert_close(merged, model, sentence)


def check_unchanged_base(strategy: StrategyUnderTest) -> None:
    """Models that are equal to the base give the base. For strategies that want one."""
    base = drawn(0)
    merged = strategy.merge(Inputs([base] * strategy.count, base), "a merge of models that are equal to the base")
    sentence = (
        f"{strategy.name}: models that changed nothing of the base must give the base. "
        "What is added to it must be zero where all task vectors are."
    )
    assert_close(merged, base, sentence)


def check_one_hot_weights(strategy: StrategyUnderTest) -> None:
    """A model of weight 0 does not count, whatever it holds. For strategies that weigh models."""
    given = strategy.inputs()
    others = [given.models[0], *(drawn(50 + i) for i in range(1, strategy.count))]
    weights = [1.0, *[0.0] * (strategy.count - 1)]
    what = f"a merge by the weights {weights}"
    merged = strategy.merge(given, what, weights)
    sentence = (
        f"{strategy.name}: models of weight 0 must not count, and the result depends on them. "
        "Use the weights, or declare Traits(weights=False)."
    )
    assert_close(strategy.merge(Inputs(others, given.base), what, weights), merged, sentence)
    if not strategy.traits.wants_base:
        sentence = f"{strategy.name}: if one model alone has a weight other than 0, and that is 1, it is the result."
        assert_close(merged, given.models[0], sentence)


def check_shapes(strategy: StrategyUnderTest) -> None:
    """Tensors of every shape are merged: of no dimension, of none or one element, of four dimensions."""
    what = f"{strategy.name}: a merge of tensors of the shapes {', '.join(map(str, ALL_SHAPES.values()))}"
    merged = strategy.merge(strategy.inputs(shapes=ALL_SHAPES), what)
    assert_finite(merged, f"{what} must be finite. Mind tensors without elements, or with only one.")
    for name, shape in ALL_SHAPES.items():
        if tuple(merged[name].shape) != shape:
            found = list(merged[name].shape)
            raise AssertionError(f"{what} must keep the shapes: {name} has the shape {found} instead of {list(shape)}.")


def check_transposed_inputs(strategy: StrategyUnderTest) -> None:
    """Tensors that are transposed in memory merge as their copies do, and an elementwise merge is only transposed."""
    given = strategy.inputs(shapes={"model.layers.0.weight": (9, 14)})
    what = f"{strategy.name}: a merge of transposed tensors"
    turned = Inputs([_transposed(model) for model in given.models], given.base and _transposed(given.base))
    copies = Inputs(
        [{name: tensor.contiguous() for name, tensor in model.items()} for model in turned.models],
        turned.base and {name: tensor.contiguous() for name, tensor in turned.base.items()},
    )
    found = strategy.merge(turned, what)
    assert_same(found, strategy.merge(copies, what), f"{what} must have the bits of a merge of their copies.")
    planned = strategy.plan(given, what).plan.tensors[0]
    if planned.granularity == "elementwise" and not strategy.by_chance:
        merged = strategy.merge(given, what)
        sentence = (
            f"{what} must be the transposed merge, since the strategy is elementwise: an element depends on the same "
            'element of the inputs alone. Do without its place, or declare granularity="rowwise" or "whole".'
        )
        assert_close(found, _transposed(merged), sentence)


def _transposed(model: Tensors) -> dict[str, torch.Tensor]:
    return {name: tensor.T for name, tensor in model.items()}


def check_zeros(strategy: StrategyUnderTest) -> None:
    """Models of zeros are merged, and give finite numbers: biases are often zero."""
    zeros = {name: torch.zeros(shape) for name, shape in SHAPES.items()}
    given = Inputs([zeros] * strategy.count, zeros if strategy.traits.wants_base else None)
    what = f"{strategy.name}: a merge of zeros"
    assert_finite(strategy.merge(given, what), f"{what} must be finite. Do not divide by a norm or a sum that is 0.")


def check_opposites(strategy: StrategyUnderTest) -> None:
    """Opposite models, or opposite task vectors, give finite numbers, or a NumericError that says why."""
    base = drawn(0) if strategy.traits.wants_base else None
    change = drawn(1)
    start = base or {name: torch.zeros_like(tensor) for name, tensor in change.items()}
    models = [
        {name: start[name] + (-1) ** place * tensor for name, tensor in change.items()}
        for place in range(strategy.count if strategy.count < 3 else 2)
    ]
    if len(models) < strategy.traits.models[0]:
        models += [start] * (strategy.traits.models[0] - len(models))
    what = f"{strategy.name}: a merge of opposite models"
    planned = strategy.plan(Inputs(models, base), what)
    with works(what):
        try:
            merged = planned.merge()
        except NumericError as error:
            if "all inputs are finite" in str(error):
                sentence = "Raise a NumericError of your own where there is no answer, or give one."
                raise AssertionError(f"{what} must not make a NaN or an infinity. {sentence}") from error
            return
    assert_finite(merged, f"{what} must be finite. Mind sums that cancel.")


def check_near_the_largest_float16(strategy: StrategyUnderTest) -> None:
    """Models of float16 with numbers near the largest give finite numbers: no sum leaves its range."""
    start = {name: tensor.sign() * LARGE for name, tensor in drawn(0).items()}
    models = [
        {name: (tensor * (1 + drawn(seed)[name] / 1000)).half() for name, tensor in start.items()}
        for seed in range(1, strategy.count + 1)
    ]
    base = {name: tensor.half() for name, tensor in start.items()} if strategy.traits.wants_base else None
    what = f"{strategy.name}: a merge of float16 models with numbers near {LARGE:,.0f}"
    sentence = f"{what} must be finite. Compute powers in float64."
    assert_finite(strategy.merge(Inputs(models, base), what), sentence)


def check_huge_element(strategy: StrategyUnderTest) -> None:
    """One element of 1e30 among normal ones gives finite numbers: its square overflows float32, so it takes float64."""
    given = strategy.inputs(dtype=torch.bfloat16)
    models = [{name: tensor.clone() for name, tensor in model.items()} for model in given.models]
    for tensor in models[-1].values():
        tensor.view(-1)[3] = 1e30
    what = f"{strategy.name}: a merge of models with one element of 1e30"
    sentence = f"{what} must be finite. Compute norms and products in float64."
    assert_finite(strategy.merge(Inputs(models, given.base), what), sentence)
