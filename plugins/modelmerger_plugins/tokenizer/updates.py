"""Which models a merge takes the updates of, and not the weights."""

from collections.abc import Iterable

from modelmerger import Checkpoint, Settings


def merged_as_updates(checkpoints: Iterable[Checkpoint], settings: Settings) -> list[Checkpoint]:
    """The adapters that are not folded into their bases, but merged as they are; none where models are merged."""
    if not getattr(settings.sections.get("peft_config"), "merge_adapters", False):
        return []
    return [checkpoint for checkpoint in checkpoints if checkpoint.base is not None]
