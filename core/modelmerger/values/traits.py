"""What a strategy tells the engine about itself, so that mistakes are caught before a tensor is read."""

from typing import Literal

from attrs import field, frozen, validators

Operation = Literal["add", "subtract"]
Granularity = Literal["elementwise", "rowwise", "whole"]


@frozen(kw_only=True)
class Traits:
    """The `traits` of a strategy module.

    models: the fewest and the most models it merges, the base not counted; None as the most is no limit.
    needs_base: whether `base_model` must be given. The base is then the last input.
    granularity: "elementwise": an output element depends on the same element of the inputs alone, and slices come as
        vectors. "rowwise": on the same row (last dimension) alone; slices come as (rows, row length). "whole": on the
        whole tensor, which then is held in memory.
    gram: whether `find_coefficients` wants the Gram matrix of the inputs.
    operations: what `operation` may say of a model.
    updates: for a strategy with `finish_tensor`, which acts on merged weights alone: whether it merges the updates of adapters all the
        same, and refuses options that it cannot keep there in `check_compatibility`.
    """

    models: tuple[int, int | None] = (1, None)
    needs_base: bool = False
    granularity: Granularity = field(
        default="elementwise", validator=validators.in_(("elementwise", "rowwise", "whole"))
    )
    gram: bool = False
    operations: tuple[Operation, ...] = ("add",)
    updates: bool = False
