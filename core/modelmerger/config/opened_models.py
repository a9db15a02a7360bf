"""The config of a merge within another one, of models that are open already."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelmerger.config.inner_merges import of_whole_run
from modelmerger.config.one_merge import Run
from modelmerger.config.told_models import count_problems, told_entries
from modelmerger.hooks.of_process import providers_of_file
from modelmerger.hooks.providers import Provider
from modelmerger.hooks.registry import Registry
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import ConfigError, Problem
from modelmerger.values.settings import BASE, key_of_model


def strategy_of(strategy: Any) -> tuple[Any, list[Provider]]:
    """A strategy as a config has it, and the plugins that come with it: a file is imported, as `--plugin` does.

    Raises `ConfigError` and `PluginError` for a file that is no strategy.
    """
    if not isinstance(strategy, os.PathLike):
        return strategy, []
    found = [one for one in providers_of_file(Path(strategy)) if one.kind == "strategy"]
    if not found:
        raise ConfigError(Problem("is no strategy: it has none of a strategy's hooks", os.fsdecode(strategy)))
    return found[0].name, found


def config_of_opened(
    strategy: Any,
    models: Sequence[Any],
    base: Any,
    weights: Sequence[Any] | None,
    model_options: Sequence[Mapping[str, Any]] | None,
    options: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The config, with the names of the models as their paths.

    Raises `ConfigError` for what is no checkpoint, a wrong number of weights, and options of the whole run.
    """
    named = {key_of_model(i): model for i, model in enumerate(models)} | ({BASE: base} if base is not None else {})
    problems = [
        Problem(f"must be a checkpoint, as `ModelMerger.load_models` opens it, got {type(model).__name__}", key)
        for key, model in named.items()
        if not isinstance(model, Checkpoint)
    ]
    problems += count_problems(len(models), weights, model_options)
    problems += of_whole_run(options or {}, Run.of(Registry.installed())).values()
    if problems:
        raise ConfigError(*problems)
    entries = told_entries(((model.name, model.name) for model in models), weights, model_options)
    config = {"strategy": strategy, "models": entries, "options": dict(options or {})}
    return config if base is None else config | {BASE: base.name}
