"""Hooks of the one strategy of a merge. The core hands it its options, for the tensor in question."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelmerger.hooks.markers import hookspec
from modelmerger.values.traits import View

if TYPE_CHECKING:
    import torch


@hookspec(firstresult=True)
def find_coefficients(
    weights: Sequence[float],
    model_options: Sequence[Any],
    options: Any,
    gram: Sequence[Sequence[float]] | None,
    shape: Sequence[int],
) -> Sequence[float] | None:
    """Strategy: the merged tensor is Σ cᵢ·inputᵢ; these are the cᵢ, one an input (the models, then the base if needed).

    This is all that a linear strategy has to say: the engine adds up, in float32 (float64 where float32 or float64 is
    written), beginning with the first product; an input of coefficient 0 is not read, one of coefficient 1 keeps its bits.
    A strategy with this hook also merges the updates of adapters, exactly: the inputs are then the updates, and the base's is zero.

    `weights` and `model_options`: one a model; the weights are this tensor's own, also where the config gives them by layer or
    pattern. `model_options` are instances of the strategy's `ModelOptions` (None where it has none). `gram`: None while the merge is planned; then, for a strategy whose traits say
    `gram=True` and that answered None to the first call, the Gram matrix of the inputs of this tensor (float64).
    `shape`: of the tensor. Raise `ConfigError` for weights that make no sense and `NumericError` where the
    result is undefined.

    ```python
    from modelmerger import Traits, hookimpl

    traits = Traits(models=(2, None))

    @hookimpl
    def find_coefficients(weights):
        return [weight**2 / sum(w**2 for w in weights) for weight in weights]
    ```
    """


@hookspec(firstresult=True)
def choose_view(tensor_name: str, shape: Sequence[int], options: Any) -> View:
    """Strategy, optional: how it sees one tensor: "linear", "elementwise", "rowwise" or "whole".

    "linear": `find_coefficients` is asked; a strategy with this hook may have it beside `merge_tensor`. The others are granularities
    of the slices that `merge_tensor` gets. Without this hook the traits say it for all tensors.

    ```python
    import torch
    from modelmerger import Traits, hookimpl

    traits = Traits(models=(2, None))

    @hookimpl
    def choose_view(shape):                            # singular values are of matrices
        return "whole" if len(shape) == 2 else "linear"

    @hookimpl
    def find_coefficients(weights):
        return [weight / sum(weights) for weight in weights]

    @hookimpl
    def merge_tensor(tensors):                         # the mean, with the mean of their singular values
        u, _, v = torch.linalg.svd(sum(tensors) / len(tensors), full_matrices=False)
        return u * (sum(torch.linalg.svdvals(tensor) for tensor in tensors) / len(tensors)) @ v
    ```
    """


@hookspec(firstresult=True)
def measure_tensor(
    tensors: Sequence["torch.Tensor"],
    inputs: Sequence[int],
    weights: Sequence[float],
    model_options: Sequence[Any],
    options: Any,
    tensor_name: str,
    shape: Sequence[int],
    offset: int,
    random: Callable[..., "torch.Tensor"],
) -> "torch.Tensor | None":
    """Strategy, optional, with `merge_tensor`: an additive statistic of a block of a tensor, as float64 or int64.

    The engine sums it over fixed blocks in a fixed order, so that neither threads nor slices can move the sum, and hands
    the sum to `merge_tensor` as `measurement`. The arguments are those of `merge_tensor`, for the block.

    ```python
    import torch
    from modelmerger import hookimpl

    @hookimpl
    def measure_tensor(tensors):
        return torch.stack([tensor.double().abs().sum() for tensor in tensors])
    ```
    """


@hookspec(firstresult=True)
def merge_tensor(
    tensors: Sequence["torch.Tensor"],
    inputs: Sequence[int],
    weights: Sequence[float],
    model_options: Sequence[Any],
    options: Any,
    measurement: "torch.Tensor | None",
    tensor_name: str,
    shape: Sequence[int],
    offset: int,
    random: Callable[..., "torch.Tensor"],
) -> "torch.Tensor | None":
    """Strategy: slices of the inputs in, the merged slice out, for what is no linear combination.

    `tensors`: float32 (float64 where float32 or float64 is written), all of one shape: a vector for an elementwise
    strategy, (rows, row length) for a rowwise one, the tensor's own shape for a strategy on whole tensors; the models in the
    order of the config, then the base if needed. A model of weight 0 is left out. `weights` and `model_options`: one a model that is
    there; the weights are this tensor's own. Returns a new tensor of the same shape and dtype; the engine checks it for
    NaN and infinity and rounds once. The inputs must not be changed or returned.

    `inputs`: which model of the config each tensor is; the base is their number. With `Traits(inputs="updates")` the tensors
    are the models' task vectors, and the base is added to what is returned. `options` and `model_options` hold the numbers of this
    tensor where the config gives them by layer or pattern. `shape`: of the whole tensor; `offset`: the slice's first element in the
    flattened tensor. `random(model)`: for the model of that index in the config, random numbers in [0, 1) of the slice's shape,
    float32 (`random(model, "float64")`: float64); they belong to the elements, so that slices, threads and devices change nothing,
    and follow from the option `seed`, the tensor's name and the model.

    ```python
    import torch
    from modelmerger import Traits, hookimpl

    traits = Traits(models=(3, None))

    @hookimpl
    def merge_tensor(tensors):
        return torch.stack(list(tensors)).median(dim=0).values
    ```
    """


@hookspec(firstresult=True)
def wants_finish(options: Any, updates: bool) -> bool | None:
    """Strategy, optional: whether its `finish_tensor` is called in this merge. Without this hook it is, for every slice.

    What is finished is looked through for NaN and infinity once more, so a strategy that finishes only if an option says so
    answers here. The answer must follow from the options alone. `updates`: whether the updates of adapters are merged. No
    merged weight is seen then and the answer does not count; raise `ModelCompatibilityError` for options that ask for more.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def wants_finish(options):
        return options.clamp
    ```
    """


@hookspec(firstresult=True)
def finish_tensor(merged: "torch.Tensor", options: Any) -> Mapping[str, int] | None:
    """Strategy, optional: changes the merged slice in place after the check for NaN and infinity, before it is rounded.

    Returns counts for the report; they are summed over all slices. It is not called where the updates of adapters are merged: a strategy
    that has it does so only if its traits say `updates=True`, and may refuse options in `wants_finish`.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def finish_tensor(merged):
        negative = int((merged < 0).sum())
        merged.clamp_(min=0)
        return {"negative values set to zero": negative}
    ```
    """
