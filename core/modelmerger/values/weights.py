"""The weight of a model, as a config may give it."""

from modelmerger.values.option_checks import Check, finite

Numbers = float | tuple[float, ...]
Weight = float | tuple[float, ...] | dict[str, float | tuple[float, ...]]
"""A number; numbers from the first layer to the last; or either by shell patterns on names, the first match first."""
DEFAULT = "default"
"""The key of a mapping that stands for all tensors that no pattern matches."""


def shown_weight(weight: Weight) -> str:
    """A weight as messages show it: `0.5`, `[0, 0.5, 1]`, `{'*.mlp.*': 0.3, 'default': 1}`."""
    if isinstance(weight, dict):
        return f"{{{', '.join(f'{pattern!r}: {shown_weight(numbers)}' for pattern, numbers in weight.items())}}}"
    if isinstance(weight, tuple):
        return f"[{', '.join(f'{number:g}' for number in weight)}]"
    return f"{weight:g}"


def _problem(weight: Weight) -> str | None:
    if isinstance(weight, dict):
        if not weight:
            return f"must not be an empty mapping. Give a number by pattern, and '{DEFAULT}'"
        found = ((pattern, _problem(numbers)) for pattern, numbers in weight.items())
        return next((f"{pattern!r} {problem}" for pattern, problem in found if problem), None)
    if isinstance(weight, tuple):
        if not weight:
            return "must not be an empty list. Give one number or more"
        return next((problem for number in weight if (problem := finite.problem(number))), None)
    return finite.problem(weight)


sound_weight = Check({"minItems": 1, "minProperties": 1, "additionalProperties": {"minItems": 1}}, _problem)
"""Finite numbers, at least one, for every pattern."""
