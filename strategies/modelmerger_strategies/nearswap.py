"""NearSwap: takes from another model what is near the base, and no more than a fixed step of the rest.

    merged = (1 − a)·θ_base + a·θ,   a = min(1, t/|θ − θ_base|),   element by element

So an element moves by its whole difference where that is at most t, and by t towards the model where it is more:
merged − θ_base is θ − θ_base clamped to [−t, t]. Alchemonaut 2024,
https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001, from which the default of t is.

For a taste of a second model without its large changes. Not to combine skills: what a fine-tune learnt is often in its
large changes, and these are what is cut off.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen
from modelmerger import Check, Traits, hookimpl, varying

if TYPE_CHECKING:
    from torch import Tensor

traits = Traits(models=(1, 1), inputs="updates", weights=False)

not_negative = Check({"minimum": 0}, lambda value: None if value >= 0 else f"must not be negative, got {value!r}")


@frozen(kw_only=True)
class Options:
    """Options of nearswap."""

    t: float = varying(default=1e-4, check=not_negative)
    """The most that an element of the base is changed by; 0 leaves the base."""


@hookimpl
def merge_tensor(tensors: Sequence["Tensor"], options: Options) -> "Tensor":
    """The difference, clamped."""
    return tensors[0].clamp(-options.t, options.t)
