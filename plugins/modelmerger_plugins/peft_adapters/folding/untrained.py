"""Whether an adapter changes nothing, because it was never trained, or what was trained was not saved."""

from collections.abc import Iterator

from modelmerger import Checkpoint, Problem

from modelmerger_plugins.peft_adapters.changes.replaced import Replaced
from modelmerger_plugins.peft_adapters.folding.adapter import Adapter
from modelmerger_plugins.peft_adapters.folding.folded import Folded
from modelmerger_plugins.peft_adapters.reading import values


def untrained(model: Folded) -> Iterator[Problem]:
    """A warning for each adapter that leaves its base as it is."""
    for adapter in model.adapters:
        if _is_scaled_to_nothing(adapter):
            message = (
                "changes nothing: its updates are scaled by 0, so the result is as without it. Is lora_alpha right?"
            )
            yield Problem(message, adapter.stored.place, severity="warning")
        elif _is_untrained(adapter, model.base.checkpoint):
            message = (
                "changes nothing: its updates are zero, as before any training, so the result is as without it. "
                "Was the trained adapter saved?"
            )
            yield Problem(message, adapter.stored.place, severity="warning")


def _is_scaled_to_nothing(adapter: Adapter) -> bool:
    changes = [change for changes in adapter.changes.values() for change in changes]
    return bool(changes) and all(change.nothing_if_zero and getattr(change, "scale", 1) == 0 for change in changes)


def _is_untrained(adapter: Adapter, base: Checkpoint) -> bool:
    """Whether all that an adapter does to its base comes to nothing: a factor of each product is zero, say.

    It is read as far as it takes to know: of a trained adapter, the first tensors' first numbers.
    """
    found = [(tensor, change) for tensor, changes in adapter.changes.items() for change in changes]
    for tensor, change in sorted(found, key=lambda item: isinstance(item[1], Replaced)):
        if isinstance(change, Replaced):
            if not values.are_equal(adapter.stored, change.key, tensor, base):
                return False
        elif not (
            any(values.is_zero(adapter.stored, key) for key in change.nothing_if_zero)
            or any(values.is_one(adapter.stored, key) for key in change.nothing_if_one)
        ):
            return False
    return bool(found)
