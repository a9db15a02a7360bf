"""Weighted average of the models.

    merged = Σ wᵢ·θᵢ           (divided by Σ wᵢ with `normalize_weights`)

For averages of models that were tuned from one base, see Wortsman et al. 2022, "Model soups",
https://arxiv.org/abs/2203.05482, eq. 1; for weighted ones, Matena and Raffel 2022, https://arxiv.org/abs/2111.09832.
"""

from collections.abc import Iterable, Sequence

from attrs import frozen
from modelmerger import ConfigError, Problem, Settings, Traits, hookimpl, must_be_between, shown_weight, varying

traits = Traits(models=(1, None))


@frozen(kw_only=True)
class Options:
    """Options of weighted."""

    normalize_weights: bool = True
    """Whether to divide by the sum of the weights."""
    weight_decay: float = varying(default=0.0, check=must_be_between(0, 1, open_above=True))
    """Tensors of two or more dimensions are multiplied by 1 − weight_decay."""


@hookimpl
def check_config(settings: Settings, options: Options) -> Iterable[Problem]:
    """A note where the weight of a single model is divided by itself."""
    weights = [model.weight for model in settings.models]
    if options.normalize_weights and len(weights) == 1 and weights != [1.0]:
        message = (
            f"has no effect: the weight {shown_weight(weights[0])} of a single model is divided by itself, since "
            "normalize_weights is true. For a part of what the model learned, use task_arithmetic with base_model."
        )
        yield Problem(message, "models[0].weight", severity="note")


@hookimpl
def find_coefficients(weights: Sequence[float], options: Options, shape: Sequence[int]) -> list[float]:
    """The weights, normalised if asked for; of tensors of two or more dimensions, multiplied by 1 − weight_decay.

    Norms and biases are not decayed, as is usual with AdamW: Loshchilov and Hutter 2019,
    https://arxiv.org/abs/1711.05101.
    """
    divisor = 1.0
    if options.normalize_weights:
        divisor = sum(weights)
        if abs(divisor) <= 1e-9:
            raise ConfigError(
                f"the weights {list(weights)} add up to {divisor:g}, which nothing can be divided by. "
                "Change a weight, or set normalize_weights: false"
            )
    kept = 1.0 - options.weight_decay if len(shape) >= 2 else 1.0
    return [weight / divisor * kept for weight in weights]
