"""What the members of an entry of `models` weigh: a share of its weight each, whatever form that has."""

from collections.abc import Mapping
from typing import Any


def shared_weight(weight: Any, share: float) -> Any:
    """The weight of a member: a number, numbers over the layers, or either by patterns; what is none, as it is."""
    if isinstance(weight, bool):
        return weight
    if isinstance(weight, int | float):
        return weight * share
    if isinstance(weight, Mapping):
        return {pattern: shared_weight(numbers, share) for pattern, numbers in weight.items()}
    if isinstance(weight, list | tuple):
        return [shared_weight(number, share) for number in weight]
    return weight
