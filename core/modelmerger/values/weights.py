"""The weight of a model, and other numbers that a config may give by layer or by pattern."""

from collections.abc import Iterator
from typing import Any

import attrs
from attrs import field

from modelmerger.values.options.checks import Check, must_be_finite

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


def each_number(check: Check) -> Check:
    """Every number must pass the check, and there must be at least one, for every pattern."""

    def problem(weight: Weight | str | None) -> str | None:
        if isinstance(weight, str):  # a word that the field's type allows
            return None
        if isinstance(weight, dict):
            if not weight:
                return f"must not be an empty mapping. Give a number by pattern, and '{DEFAULT}'"
            found = ((pattern, problem(numbers)) for pattern, numbers in weight.items())
            return next((f"{pattern!r} {sentence}" for pattern, sentence in found if sentence), None)
        if isinstance(weight, tuple):
            if not weight:
                return "must not be an empty list. Give one number or more"
            return next((sentence for number in weight if (sentence := check.problem(number))), None)
        return None if weight is None else check.problem(weight)

    each = {**check.allows, "minItems": 1}  # JSON Schema ignores keywords for other types
    if check.allows:
        each["items"] = {"type": "number", **check.allows}
    return Check({**each, "minProperties": 1, "additionalProperties": each}, problem)


sound_weight = each_number(must_be_finite)
"""All numbers must be finite, and there must be at least one, for every pattern."""
_VARIES = "varies by tensor"


def varying(*, default: Weight | str | None, check: Check = must_be_finite) -> Any:
    """A numeric field of `Options` or `ModelOptions` that may vary by tensor, as the weight of a model may.

    A config gives a number, a list over the layers, or a mapping from patterns on tensor names, and a hook that is
    called for a tensor gets the number of that tensor. Other hooks (`check_compatibility`, `wants_finish`) get what the
    config has. default: what a config could give, with a tuple for a list. check: what every number must pass. A word
    that the field's type allows (`float | Literal["auto"]`) may stand in place of all numbers, and hooks get it as it
    is.

    ```python
    from attrs import frozen
    from modelmerger import must_be_between, varying

    @frozen(kw_only=True)
    class ModelOptions:
        density: float = varying(default=1.0, check=must_be_between(0, 1))
    ```
    """
    return field(default=default, validator=each_number(check), metadata={_VARIES: True})


def may_vary(declared: "attrs.Attribute[Any]") -> bool:
    """Whether a field was declared by `varying`."""
    return bool(declared.metadata.get(_VARIES))


def varying_fields(options: Any) -> Iterator[tuple[str, Weight]]:
    """The fields of an instance of options that may vary, and the numbers that the config has for them, if any."""
    for declared in attrs.fields(type(options)) if options is not None else ():
        value = getattr(options, declared.name) if may_vary(declared) else None
        if value is not None and not isinstance(value, str):
            yield declared.name, value
