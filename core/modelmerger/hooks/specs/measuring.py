"""Hooks of the strategy that measure a tensor before it is merged."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from modelmerger.hooks.markers import hookspec

if TYPE_CHECKING:
    import torch


@hookspec(firstresult=True)
def count_rounds(
    weights: Sequence[float], model_options: Sequence[Any], options: Any, shape: Sequence[int]
) -> int | None:
    """Strategy, optional, beside `measure_tensor`: returns how often one tensor is measured before it is merged.

    It is at most the `rounds` of the traits, which hold for all tensors without this hook or where it answers None. The
    inputs are read once for each round, so a strategy whose options make a round needless saves time here. It is
    called once for each tensor, while the merge is planned, with the arguments of `merge_tensor`. Raise `ConfigError`
    for options that make no sense for the tensor.

    ```python
    import torch
    from attrs import frozen
    from modelmerger import Traits, hookimpl

    traits = Traits(models=(1, None))

    @frozen(kw_only=True)
    class Options:
        keep_norm: bool = False

    @hookimpl
    def count_rounds(options):                         # the norms are needed only if they are kept
        return 1 if options.keep_norm else 0

    @hookimpl
    def measure_tensor(tensors):
        return torch.stack([tensor.double().square().sum() for tensor in (tensors[0], sum(tensors))])

    @hookimpl
    def merge_tensor(tensors, measurements, options):  # the sum, as long as the first model
        first, whole = measurements[0].sqrt().tolist() if options.keep_norm else (1.0, 1.0)
        return sum(tensors) * (first / whole if whole else 0.0)
    ```
    """


@hookspec(firstresult=True)
def choose_ranges(
    round: int,
    measurements: Sequence["torch.Tensor"],
    weights: Sequence[float],
    model_options: Sequence[Any],
    options: Any,
    shape: Sequence[int],
) -> Sequence[tuple[int, int]] | None:
    """Strategy, optional, beside `measure_tensor`: returns the elements of a tensor that a round measures.

    They are ranges of the flattened tensor, each from its first element to the one behind its last, in order and apart;
    None is all of it. Nothing else is read in this round. The ranges are laid end to end, and `measure_tensor` gets
    blocks of that, in whole rows for a rowwise strategy. An empty answer ends the measurement without another reading.

    `measurements`: the sums of the rounds before, one a round. While the merge is planned there are none, whatever the
    `round`: say then what is to be expected, for the bytes that the plan counts. The other arguments are those of
    `count_rounds`.

    ```python
    import math
    import torch
    from modelmerger import Traits, hookimpl

    traits = Traits(models=(1, None))

    @hookimpl
    def choose_ranges(shape):                          # a rough scale needs no more than a sample
        elements = math.prod(shape)
        return [(start, min(start + 256, elements)) for start in range(0, elements, 4096)]

    @hookimpl
    def measure_tensor(tensors):
        return torch.stack([tensor.double().abs().sum() for tensor in tensors])

    @hookimpl
    def merge_tensor(tensors, measurements):           # models of large numbers count for less
        shares = 1 / measurements[0].clamp(min=1e-30)
        return sum(t * float(share / shares.sum()) for t, share in zip(tensors, shares, strict=True))
    ```
    """


@hookspec(firstresult=True)
def measure_tensor(
    tensors: Sequence["torch.Tensor"],
    round: int,
    measurements: Sequence["torch.Tensor"],
    inputs: Sequence[int],
    weights: Sequence[float],
    model_options: Sequence[Any],
    options: Any,
    tensor_name: str,
    shape: Sequence[int],
    offset: int,
    random: Callable[..., "torch.Tensor"],
) -> "torch.Tensor | None":
    """Strategy, optional, beside `merge_tensor`: returns an additive statistic of a block of a tensor.

    It is float64 or int64, of any shape. The engine sums it over fixed blocks in a fixed order, so that the sum does
    not depend on threads or slices, and hands the sums of all rounds to `merge_tensor` as `measurements`. Of a large
    tensor, no more than a few statistics are kept at a time. The other arguments are those of `merge_tensor`, for the
    block. Where `choose_ranges` wants a part of the tensor, blocks are made of that, and `offset` is the place of the
    block's first element.

    A strategy whose traits say `rounds=2` or more is asked again for the whole tensor, with the number of the `round`,
    which begins at 0, and the sums of the rounds before it in `measurements`. None in answer to a block adds nothing;
    in answer to all blocks of a round, it ends the measurement early.

    ```python
    import math
    import torch
    from modelmerger import Traits, hookimpl

    traits = Traits(models=(1, None), rounds=2)        # the variance, around the exact mean

    @hookimpl
    def measure_tensor(tensors, round, measurements, shape):
        if round == 0:
            return torch.stack([tensor.double().sum() for tensor in tensors])
        means = measurements[0] / math.prod(shape)
        return torch.stack([((t.double() - mean) ** 2).sum() for t, mean in zip(tensors, means, strict=True)])

    @hookimpl
    def merge_tensor(tensors, measurements):           # models that vary less count for more
        shares = 1 / measurements[1].clamp(min=1e-30)
        return sum(t * float(share / shares.sum()) for t, share in zip(tensors, shares, strict=True))
    ```
    """


@hookspec(firstresult=True)
def join_measurements(
    parts: Sequence["torch.Tensor"],
    round: int,
    measurements: Sequence["torch.Tensor"],
    weights: Sequence[float],
    model_options: Sequence[Any],
    options: Any,
    shape: Sequence[int],
) -> "torch.Tensor | None":
    """Strategy, optional, beside `measure_tensor`: makes one statistic of several, where that is not their sum.

    `parts`: at least two statistics of one round, in the order of the elements that they are about; each was measured
    or joined. Their shapes may differ. Which of them are joined first does not depend on threads or slices, and the
    result should not depend on it either. Returns float64 or int64; None where the parts of this round are added up.
    The other arguments are those of `choose_ranges`.

    ```python
    import torch
    from modelmerger import Traits, hookimpl

    traits = Traits(models=(1, None))                  # no model has larger numbers than the first

    @hookimpl
    def measure_tensor(tensors):
        return torch.stack([tensor.double().abs().max() for tensor in tensors])

    @hookimpl
    def join_measurements(parts):
        return torch.stack(list(parts)).amax(dim=0)

    @hookimpl
    def merge_tensor(tensors, measurements):
        most = measurements[0].clamp(min=1e-30)
        scales = (most[0] / most).clamp(max=1).tolist()
        return sum(t * scale for t, scale in zip(tensors, scales, strict=True)) / len(tensors)
    ```
    """
