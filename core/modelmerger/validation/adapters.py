"""All that a validation and a returned model know of adapters: folded into their base to be measured, put on it to be returned."""

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve

from modelmerger.values.settings import CoreOptions, Settings

ADAPTER = "adapter_config.json"
log = logging.getLogger("modelmerger")


def materialise(directory: Path, merged: bool, settings: Settings | None, target: Path | None) -> Path | None:
    """Where transformers can load an adapter from: `target`, into which it is folded with its base by a merge of one model.

    PEFT would import what an adapter's config names; the merge does not. None for what is not an adapter. Without `target`, only
    checks whether it can be folded, as far as headers and configs say it, and answers the directory. merged: whether this is the
    merged adapter, which has no name of its own. settings: of the merge, if there is one. Raises `MergeError` where the adapter
    cannot be folded.
    """
    if not os.path.lexists(directory / ADAPTER):
        return None
    from modelmerger.run import check, run_merge

    config = {"strategy": "weighted", "models": [{"path": str(directory)}], **_folding(merged, settings)}
    if target is None:
        check(config)
        return directory
    level = log.level
    try:
        run_merge(config, target)
    finally:
        log.setLevel(level)  # the merge sets its own
    return target


def return_model(directory: Path, base: Path, options: CoreOptions, load: Callable[[Path, CoreOptions], Any]) -> Any:
    """The adapter in the directory on its base, a PEFT model in evaluation mode. `load` loads a model that is not an adapter."""
    import peft

    if options.low_memory_mode:
        log.warning("low_memory_mode: the base of the returned adapter is loaded, since PEFT adds layers to it.")
    model = load(base, evolve(options, low_memory_mode=False))
    with warnings.catch_warnings():  # of an attribute that PEFT asks transformers for
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return peft.PeftModel.from_pretrained(model, directory).eval()


def _folding(merged: bool, settings: Settings | None) -> dict[str, Any]:
    """What the config of the folding takes from that of the merge: the base, and which adapters of the directory."""
    if settings is None:
        return {}
    names = {"adapter_names": list(settings.peft.adapter_names)} if settings.peft and not merged else {}
    live = settings.live.get("base_model")
    if live is not None:
        return {"base_model": live, "peft_config": names}
    base = (settings.peft.base_model_path if settings.peft else None) or settings.base_model
    return {"peft_config": names | ({"base_model_path": base} if base else {})}
