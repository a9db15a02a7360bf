"""Task arithmetic: add to a base model what each fine-tuning taught, or take it away.

    merged = θ_base + scaling_factor · Σ ±wᵢ·(θᵢ − θ_base)

Ilharco et al. 2023, "Editing models with task arithmetic", https://arxiv.org/abs/2212.04089, section 2.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from attrs import field, frozen
from modelmerger import Checkpoint, Operation, Problem, Settings, Traits, hookimpl
from modelmerger.values.option_checks import finite

if TYPE_CHECKING:
    from attrs import Attribute
    from torch import Tensor

traits = Traits(models=(1, None), needs_base=True, operations=("add", "subtract"), updates=True)


def _ordered(_: object, __: "Attribute[tuple[float, float]]", value: tuple[float, float]) -> None:
    if not value[0] < value[1]:
        raise ValueError(f"must be two numbers, the smaller first, got {list(value)}")


@frozen(kw_only=True)
class Options:
    """scaling_factor: λ. clamp_weights: whether merged values are clamped, after the check for NaN and infinity.

    clamp_range: the smallest and the largest value that clamping leaves.
    """

    scaling_factor: float = field(default=1.0, validator=finite)
    clamp_weights: bool = False
    clamp_range: tuple[float, float] = field(default=(-2.0, 2.0), validator=_ordered)


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint], settings: Settings) -> Iterable[Problem]:
    """Merged updates are no weights that could be clamped."""
    merges_updates = settings.peft is not None and settings.peft.merge_adapters
    if settings.strategy_options.clamp_weights and merges_updates and any(c.base is not None for c in checkpoints):
        message = "clamps merged weights, and with merge_adapters: true the adapters' updates are merged. Set one of the two to false."
        yield Problem(message, "options.clamp_weights")


@hookimpl
def find_coefficients(weights: Sequence[float], operations: Sequence[Operation], options: Options) -> list[float]:
    """λ·wᵢ for a model that is added, −λ·|wᵢ| for one that is subtracted; the base gets 1 minus their sum."""
    signed = [-abs(w) if operation == "subtract" else w for w, operation in zip(weights, operations, strict=True)]
    scaled = [options.scaling_factor * weight for weight in signed]
    return [*scaled, 1.0 - sum(scaled)]


@hookimpl
def wants_finish(options: Options) -> bool:
    """Where weights are clamped."""
    return options.clamp_weights


@hookimpl
def finish_tensor(merged: "Tensor", options: Options) -> dict[str, int]:
    """Clamps in place; counts the values that were outside."""
    low, high = options.clamp_range
    outside = int(((merged < low) | (merged > high)).sum())
    merged.clamp_(low, high)
    return {"clamped values": outside}
