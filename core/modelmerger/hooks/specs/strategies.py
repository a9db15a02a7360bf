"""Hooks of the one strategy of a merge."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelmerger.hooks.markers import hookspec
from modelmerger.values.traits import View

if TYPE_CHECKING:
    import torch

    from modelmerger.values.strategies.terms import Terms


@hookspec(firstresult=True)
def find_coefficients(
    weights: Sequence[float],
    model_options: Sequence[Any],
    options: Any,
    gram: Sequence[Sequence[float]] | None,
    shape: Sequence[int],
) -> Sequence[float] | None:
    """Strategy: returns the coefficients cᵢ of a merged tensor Σ cᵢ·inputᵢ, one an input.

    The inputs are the models in the order of the config, then the base if the traits say `needs_base=True`. A linear
    strategy needs no other hook. The engine adds up in float32 (in float64 where float32 or float64 is written),
    beginning with the first product. An input of coefficient 0 is not read, and one of coefficient 1 keeps its bits. A
    strategy with this hook also merges the updates of adapters, exactly: the inputs are then the updates, and the
    base's update is zero.

    `weights`: one a model. They are those of this tensor, even if the config gives weights by layer or pattern.
    `model_options`: one instance of the strategy's `ModelOptions` a model, or None where it has no such class. `gram`:
    None while the merge is planned. A strategy whose traits say `gram=True` may then answer None, and is asked again
    with the Gram matrix of this tensor's inputs (float64, one row an input). `shape`: of the tensor. Raise
    `ConfigError` for weights that make no sense, `NumericError` where the result is undefined.

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
    """Strategy, optional: returns how it sees one tensor: as "linear", "elementwise", "rowwise" or "whole".

    For "linear", the engine calls `find_coefficients`, which a strategy with this hook may have beside `merge_tensor`.
    The others are granularities of the slices that `merge_tensor` gets. Without this hook, the traits say how the
    strategy sees all tensors.

    ```python
    import torch
    from modelmerger import Traits, hookimpl

    traits = Traits(models=(2, None))

    @hookimpl
    def choose_view(shape):                            # only matrices have singular values
        return "whole" if len(shape) == 2 else "linear"

    @hookimpl
    def find_coefficients(weights):
        return [weight / sum(weights) for weight in weights]

    @hookimpl
    def merge_tensor(tensors):                         # the mean, with the mean singular values
        u, _, v = torch.linalg.svd(sum(tensors) / len(tensors), full_matrices=False)
        return u * (sum(torch.linalg.svdvals(tensor) for tensor in tensors) / len(tensors)) @ v
    ```
    """


@hookspec(firstresult=True)
def merge_tensor(
    tensors: Sequence["torch.Tensor"],
    inputs: Sequence[int],
    weights: Sequence[float],
    model_options: Sequence[Any],
    options: Any,
    measurements: Sequence["torch.Tensor"],
    tensor_name: str,
    shape: Sequence[int],
    offset: int,
    random: Callable[..., "torch.Tensor"],
) -> "torch.Tensor | None":
    """Strategy: merges a slice of a tensor, where that is not a linear combination.

    `tensors`: slices of the models in the order of the config, then of the base if the traits say `needs_base=True`.
    Models of weight 0 are left out. They are float32 (float64 where float32 or float64 is written) and have one shape:
    a vector for an elementwise strategy, (rows, row length) for a rowwise one, the shape of the tensor for a strategy
    on whole tensors. With `Traits(inputs="updates")`, they are the models' task vectors, without the base, which is
    added to what is returned.

    `inputs`: the index of each of `tensors` among the config's models; the base model's index is the number of models.
    `weights` and `model_options`: one a model that is not left out, as in `find_coefficients`. `options` and
    `model_options` have the numbers of this tensor where the config gives them by layer or pattern. `measurements`:
    what `measure_tensor` found in this tensor, one sum a round; empty without that hook. `shape`: of the whole tensor.
    `offset`: the first element of the slice in the flattened tensor.

    `random(model)` returns random numbers in [0, 1) for the model of that index in the config: float32, or float64 with
    `random(model, "float64")`, in the shape of the slice. They belong to the elements and depend on the option `seed`,
    the tensor's name and the model alone, not on slices, threads or devices. `random(model, below=0.3)` returns 1 where
    the number is less than 0.3 and 0 elsewhere, which takes less time than to compare.

    Returns a new tensor of the same shape and dtype. The engine checks it for NaN and infinity, and rounds it once. The
    inputs must not be changed or returned.

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
def merge_cores(
    cores: Sequence["torch.Tensor"],
    noise: Sequence[float],
    weights: Sequence[float],
    model_options: Sequence[Any],
    options: Any,
    tensor_name: str,
    shape: Sequence[int],
) -> "torch.Tensor | None":
    """Strategy, optional, beside `merge_tensor`: merges the updates of adapters to a matrix in the space they share.

    The updates are U·coreᵢ·V, where the columns of U and the rows of V are orthonormal and the same for all models, so
    a core has the singular values, the inner products and the norm of its update; it is only as large as the sum of
    the ranks, and the cost of a merge falls from the cube of the matrix's size to the cube of that. Returns the merged
    core, and U·core·V is then the merged update. For strategies that give the same in any orthonormal basis: those by
    singular values do, those by single elements do not. A strategy with this hook merges the updates of adapters: those
    to tensors that it sees as "linear" by its coefficients, all others here.

    `cores`: one (r, c) matrix a model, float64; zeros for a model that leaves the tensor as it is. Models of weight 0
    are left out. `noise`: one a model, the root mean square of what rounding may have changed in the numbers of its
    core. `weights`, `model_options`, `options`: as in `merge_tensor`. `shape`: of the matrix, (rows, columns). The
    inputs must not be changed or returned.

    ```python
    import torch
    from modelmerger import Traits, hookimpl

    traits = Traits(models=(1, None), needs_base=True, granularity="whole")

    def capped(total):                                 # no direction counts for more than half of the strongest
        u, values, v = torch.linalg.svd(total, full_matrices=False)
        return u * values.clamp(max=float(values[0]) / 2) @ v

    @hookimpl
    def merge_tensor(tensors):
        *models, base = tensors
        return base + capped(sum(model - base for model in models))

    @hookimpl
    def merge_cores(cores):
        return capped(sum(cores))
    ```
    """


@hookspec(firstresult=True)
def split_tensor(
    tensors: Sequence["torch.Tensor"],
    inputs: Sequence[int],
    weights: Sequence[float],
    model_options: Sequence[Any],
    options: Any,
    measurements: Sequence["torch.Tensor"],
    tensor_name: str,
    shape: Sequence[int],
    random: Callable[..., "torch.Tensor"],
) -> "Terms | None":
    """Strategy, optional, beside `merge_tensor`: returns the terms that the merge of a tensor is a sum of.

    For strategies that do their hard work on each model whatever its weight, and then add up: what `merge_tensor` would
    make is base + Σ cᵢ·termᵢ (without the base for a strategy that wants none), where only the cᵢ follow from the
    weights. Whoever looks for weights, such as `modelmerger tune`, then does the hard work once, and has the merge at
    any other weights, and its derivatives, from the terms. No merge calls this hook.

    The arguments are those of `merge_tensor`, for a tensor as a whole, in the slice that a strategy with such a view
    would see if slices were as long as tensors. Returns a `Terms`: new tensors, or pairs of factors whose product is a
    term; `weigh(weights, model_options, options)`, which gives one finite number a term, for weights of these same
    models that are not 0; and the names of the options that `weigh` goes by. None where the options make something of
    the tensor that is no such sum. The inputs must not be changed or returned.

    ```python
    from attrs import frozen
    from modelmerger import Terms, Traits, hookimpl

    traits = Traits(models=(1, None), needs_base=True, granularity="whole")

    @frozen(kw_only=True)
    class Options:
        scale: float = 1.0

    def capped(update):                                # no number counts for more than three times the mean magnitude
        most = 3 * float(update.abs().mean())
        return update.clamp(-most, most)

    @hookimpl
    def merge_tensor(tensors, weights, options):
        *models, base = tensors
        return base + options.scale * sum(w * capped(model - base) for w, model in zip(weights, models))

    @hookimpl
    def split_tensor(tensors):
        *models, base = tensors

        def weigh(weights, model_options, options):
            return [options.scale * weight for weight in weights]

        return Terms([capped(model - base) for model in models], weigh, follows=["scale"])
    ```
    """


@hookspec(firstresult=True)
def wants_finish(options: Any, updates: bool) -> bool | None:
    """Strategy, optional: whether its `finish_tensor` is called in this merge. Without this hook, it is.

    A finished slice is checked for NaN and infinity a second time, so a strategy that finishes slices only for some
    options saves time here. The answer must depend on the options alone. `updates`: whether the updates of adapters are
    merged. Slices are then not finished, whatever the answer: raise `ModelCompatibilityError` for options that need it.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def wants_finish(options):
        return options.clamp
    ```
    """


@hookspec(firstresult=True)
def finish_tensor(merged: "torch.Tensor", options: Any) -> Mapping[str, int] | None:
    """Strategy, optional: changes a merged slice in place, after the check for NaN and infinity and before rounding.

    Returns counts for the report, which are summed over all slices. It is not called where the updates of adapters are
    merged. A strategy with this hook merges updates only if its traits say `updates=True`, and may refuse options for
    that in `wants_finish`.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def finish_tensor(merged):
        negative = int((merged < 0).sum())
        merged.clamp_(min=0)
        return {"negative values set to zero": negative}
    ```
    """
