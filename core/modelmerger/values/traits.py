"""What a strategy declares about itself, so that mistakes are found before a tensor is read."""

from typing import Literal

from attrs import field, frozen, validators

Granularity = Literal["elementwise", "rowwise", "whole"]
"""What an element of the output depends on in the inputs: the same element, the same row, or all of the tensor."""
View = Literal["linear", "elementwise", "rowwise", "whole"]
"""How a strategy sees one tensor: by coefficients of the inputs, or by slices of a granularity."""
Inputs = Literal["models", "updates"]
"""What a strategy gets: the models' tensors, or their differences from the base's."""


@frozen(kw_only=True)
class Traits:
    """The `traits` of a strategy module."""

    models: tuple[int, int | None] = (1, None)
    """The fewest and the most models it merges, the base not counted; None as the most is no limit."""
    needs_base: bool = False
    """Whether `base_model` must be given. The base is then the last input."""
    inputs: Inputs = field(default="models", validator=validators.in_(("models", "updates")))
    """"updates": the strategy gets a task vector θᵢ − θ_base for each model, and the base is added to what it makes of
    them, with one rounding. A base model must then be given."""
    granularity: Granularity = field(
        default="elementwise", validator=validators.in_(("elementwise", "rowwise", "whole"))
    )
    """"elementwise": an output element depends on the same element of the inputs alone, and slices come as vectors.
    "rowwise": on the same row (last dimension) alone; slices come as (rows, row length). "whole": on the whole tensor,
    which then is held in memory."""
    rounds: int = field(default=1, validator=validators.and_(validators.instance_of(int), validators.ge(1)))
    """How often a strategy with `measure_tensor` measures a tensor, at most: each round sees what those before it
    found, and reads the inputs once more."""
    gram: bool = False
    """Whether `find_coefficients` wants the Gram matrix of the inputs."""
    updates: bool = False
    """For a strategy with `finish_tensor`, which acts on merged weights alone: whether it merges the updates of
    adapters all the same, and refuses options that it cannot keep there in `wants_finish`."""

    @property
    def wants_base(self) -> bool:
        """Whether there must be a base model, as an input or for updates."""
        return self.needs_base or self.inputs == "updates"
