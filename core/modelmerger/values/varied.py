"""Which options vary by tensor, and between which numbers, as a plan says it to people."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelmerger.values.text import shown


def shown_ranges(by_tensor: Iterable[Mapping[str, Any]], models: Sequence[str]) -> str:
    """`power 1 to 3, density of chat 0.2 to 0.8`; empty where no option differs between tensors.

    by_tensor: what `TensorPlan.varying` gives for each tensor. models: their names, in the order of the config.
    """
    ranges: dict[str, tuple[float, float]] = {}
    for found in by_tensor:
        numbers = dict(found.get("options", {}))
        for model, own in zip(models, found.get("model_options", ()), strict=False):  # a base has no options
            numbers |= {f"{key} of {model}": number for key, number in own.items()}
        for what, number in numbers.items():
            least, most = ranges.get(what, (number, number))
            ranges[what] = min(least, number), max(most, number)
    return ", ".join(f"{shown(what)} {least:g} to {most:g}" for what, (least, most) in ranges.items() if least != most)
