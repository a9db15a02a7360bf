"""A model under wrappers' names as transformers loads it: merged alone, which takes them off."""

import logging
import os
from pathlib import Path

from modelmerger import InputError, MergeConfig, ModelMerger, merge

from modelmerger_plugins.adapter_names import ADAPTER_CONFIG
from modelmerger_plugins.names.view import RenamedView

log = logging.getLogger("modelmerger")


def plain_model(directory: Path, target: Path | None) -> Path | None:
    """Where the model is without what wrappers write into its names; None where its own directory is as good.

    Without a target, nothing is written, and the directory is the answer.
    """
    if os.path.lexists(directory / ADAPTER_CONFIG):
        return None
    output = str(target) if target is not None else None
    config = MergeConfig(strategy="weighted", models=[{"path": str(directory)}], output_path=output)
    if not _is_wrapped(config):
        return None
    if target is None:
        return directory
    level = log.level
    try:
        merge(config)
    finally:
        log.setLevel(level)  # the merge sets its own
    return target


def _is_wrapped(config: MergeConfig) -> bool:
    """Whether the names of the one model of a config have wrappers' parts; false where it cannot be opened."""
    try:
        (model,) = ModelMerger(config).load_models().values()
    except InputError:
        return False
    return isinstance(model, RenamedView)
