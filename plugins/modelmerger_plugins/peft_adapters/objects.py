"""Adapters as objects: with PEFT on their base, or folded into a full model that transformers loads."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelmerger import MergeConfig, ModelMerger, Settings, merge

from modelmerger_plugins.chat_templates import templates_in
from modelmerger_plugins.peft_adapters.section import NAME, given_base, of_adapters

log = logging.getLogger("modelmerger")


def peft_model(directory: Path, base: Path, load: Callable[[Path], Any], low_memory_mode: bool) -> Any:
    """The adapter in a directory on its base."""
    import peft

    if low_memory_mode:
        log.warning("low_memory_mode: the base of the returned adapter is loaded, since PEFT adds layers to it.")
    model = load(base)
    with warnings.catch_warnings():  # of an attribute that PEFT asks transformers for
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return peft.PeftModel.from_pretrained(model, directory).eval()


def full_model(directory: Path, merged: bool, settings: Settings | None, target: Path | None) -> Path:
    """The adapter folded into its base, in `target`.

    Without a target: checks that it can be folded, and the directory itself is the answer. Raises a `MergeError` where
    it cannot.
    """
    config = _alone(directory, merged, settings, target)
    if target is None:
        ModelMerger(config).check_compatibility()
        return directory
    level = log.level
    try:
        merge(config)
    finally:
        log.setLevel(level)  # the merge sets its own
    return target


def _alone(directory: Path, merged: bool, settings: Settings | None, target: Path | None) -> MergeConfig:
    """A merge of this one adapter.

    What came out of a merge has no name of its own; any other has those that the config says. The adapter's own chat
    template is taken, since it was trained with it.
    """
    section: dict[str, Any] = {}
    base: Any = None
    if settings is not None:
        section = {} if merged and settings.models else {"adapter_names": list(of_adapters(settings).adapter_names)}
        base = settings.live.get("base_model")
        if base is None and (given := given_base(settings)):
            section["base_model_path"] = given
    spoken = bool(templates_in(directory))
    named = {"name": directory.name} if spoken else {}
    return MergeConfig(
        strategy="weighted",
        models=[{"path": str(directory), **named}],
        base_model=base,
        output_path=str(target) if target is not None else None,
        options={"chat_template_from": directory.name} if spoken else {},
        **dict[str, Any]({NAME: section}),
    )
