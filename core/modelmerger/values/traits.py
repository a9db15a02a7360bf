"""What a strategy declares about itself, so that mistakes are found before a tensor is read."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from attrs import field, frozen

from modelmerger.values.options.checks import Check, must_be_one_of

if TYPE_CHECKING:
    from attrs import Attribute

Granularity = Literal["elementwise", "rowwise", "whole"]
"""What an element of the output depends on in the inputs: the same element, the same row, or all of the tensor."""
View = Literal["linear", "elementwise", "rowwise", "whole"]
"""How a strategy sees one tensor: by coefficients of the inputs, or by slices of a granularity."""
Inputs = Literal["models", "updates"]
"""What a strategy gets: the models' tensors, or their differences from the base's."""


def _named(check: Check) -> "Callable[[Any, Attribute[Any], Any], None]":
    """The check as a validator whose sentence begins with the name of the field."""

    def validate(_: Any, attribute: "Attribute[Any]", value: Any) -> None:
        if sentence := check.problem(value):
            raise ValueError(f"{attribute.name} {sentence}")

    return validate


def _count_problem(value: Any) -> str | None:
    return None if type(value) is int and value >= 1 else f"must be a whole number, at least 1, got {value!r}"


def _copies_problem(value: Any) -> str | None:
    return None if type(value) is int and value >= 0 else f"must be a whole number, at least 0, got {value!r}"


def _bounds_problem(value: Any) -> str | None:
    pair = isinstance(value, tuple) and len(value) == 2
    if pair and type(value[0]) is int and (value[1] is None or type(value[1]) is int):
        return None
    return f"must be the fewest and the most models, as (1, None) or (2, 2), got {value!r}"


_ONE_OR_MORE, _BOUNDS = Check({}, _count_problem), Check({}, _bounds_problem)


@frozen(kw_only=True)
class Traits:
    """The `traits` of a strategy module."""

    models: tuple[int, int | None] = field(default=(1, None), validator=_named(_BOUNDS))
    """The fewest and the most models it merges, the base not counted; None as the most is no limit."""
    weights: bool = True
    """Whether it weighs models. If not, a weight other than 1 is an error."""
    ordered: bool = False
    """Whether the order of the models counts. If not, `modelmerger.testing` checks that it does not."""
    needs_base: bool = False
    """Whether `base_model` must be given. The base is then the last input."""
    inputs: Inputs = field(default="models", validator=_named(must_be_one_of("models", "updates")))
    """"updates": the strategy gets a task vector θᵢ − θ_base for each model, and the base is added to what it makes of
    them, with one rounding. A base model must then be given."""
    granularity: Granularity = field(
        default="elementwise", validator=_named(must_be_one_of("elementwise", "rowwise", "whole"))
    )
    """"elementwise": an output element depends on the same element of the inputs alone, and slices come as vectors.
    "rowwise": on the same row (last dimension) alone; slices come as (rows, row length). "whole": on the whole tensor,
    which then is held in memory."""
    copies: int = field(default=0, validator=_named(Check({}, _copies_problem)))
    """How many more matrices of the size of a tensor that it sees whole `merge_tensor` holds at a time, in the dtype
    that it computes in, beside inputs and result. They count in the plan's memory."""
    rounds: int = field(default=1, validator=_named(_ONE_OR_MORE))
    """How often a strategy with `measure_tensor` measures a tensor, at most: each round sees what those before it
    found, and reads the inputs once more. With `count_rounds`, it says how often for each tensor."""
    gram: bool = False
    """Whether `find_coefficients` wants the Gram matrix of the inputs."""
    updates: bool = False
    """For a strategy with `finish_tensor`, which acts on merged weights alone: whether it merges the updates of
    adapters all the same, and refuses options that it cannot keep there in `wants_finish`."""

    @property
    def wants_base(self) -> bool:
        """Whether there must be a base model, as an input or for updates."""
        return self.needs_base or self.inputs == "updates"
