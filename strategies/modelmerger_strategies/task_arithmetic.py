"""Task arithmetic: adds what each fine-tuning taught to a base model, or takes it away.

    merged = θ_base + scaling_factor · Σ ±wᵢ·(θᵢ − θ_base)

Ilharco et al. 2023, "Editing models with task arithmetic", https://arxiv.org/abs/2212.04089, section 2.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from attrs import field, frozen
from modelmerger import ModelCompatibilityError, Problem, Settings, Traits, hookimpl, varying

from modelmerger_strategies.task_vectors.scaling import SHARE, share_of

if TYPE_CHECKING:
    from attrs import Attribute
    from torch import Tensor

traits = Traits(models=(1, None), needs_base=True, updates=True)


def _ordered(_: object, __: "Attribute[tuple[float, float]]", value: tuple[float, float]) -> None:
    if not value[0] < value[1]:
        raise ValueError(f"must be two numbers, the smaller first, got {list(value)}")


@frozen(kw_only=True)
class Options:
    """Options of task arithmetic."""

    scaling_factor: float | Literal["matched"] = varying(default=1.0)
    """λ, what the sum of the task vectors is multiplied by; `matched`: 1.6/n for n models, from 0.4 to 1."""
    clamp_weights: bool = False
    """Whether merged values are clamped, after the check for NaN and infinity."""
    clamp_range: tuple[float, float] = field(default=(-2.0, 2.0), validator=_ordered)
    """The smallest and the largest value that clamping leaves."""


@frozen(kw_only=True)
class ModelOptions:
    """What task arithmetic wants to know of each model."""

    operation: Literal["add", "subtract"] = "add"
    """Whether what the model learned is added or subtracted."""


@hookimpl
def check_config(settings: Settings, options: Options) -> Iterable[Problem]:
    """A note where a range is given and nothing is clamped to it."""
    if "clamp_range" in (settings.given.get("options") or {}) and not options.clamp_weights:
        yield Problem("has no effect, since clamp_weights is false.", "options.clamp_range", severity="note")


@hookimpl
def find_coefficients(weights: Sequence[float], model_options: Sequence[ModelOptions], options: Options) -> list[float]:
    """λ·wᵢ for a model that is added, −λ·|wᵢ| for one that is subtracted; the base gets 1 minus their sum."""
    signed = [-abs(w) if m.operation == "subtract" else w for w, m in zip(weights, model_options, strict=True)]
    factor = options.scaling_factor
    if not isinstance(factor, float):
        factor = share_of(sum(weight != 0 for weight in weights), SHARE)
    scaled = [factor * weight for weight in signed]
    return [*scaled, 1.0 - sum(scaled)]


@hookimpl
def wants_finish(options: Options, updates: bool) -> bool:
    """Whether weights are clamped. Merged updates are not weights, so they cannot be."""
    if options.clamp_weights and updates:
        message = (
            "clamps merged weights, and with merge_adapters: true the adapters' updates are merged. "
            "Set one of the two to false."
        )
        raise ModelCompatibilityError(Problem(message, "options.clamp_weights"))
    return options.clamp_weights


@hookimpl
def finish_tensor(merged: "Tensor", options: Options) -> dict[str, int]:
    """Clamps the slice in place, and counts the values that were outside the range."""
    low, high = options.clamp_range
    outside = int(((merged < low) | (merged > high)).sum())
    merged.clamp_(low, high)
    return {"clamped values": outside}
