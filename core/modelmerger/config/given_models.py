"""The `models` of a config: mappings with a path, and with what the strategy wants to know of a model."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from modelmerger.config.models_in_memory import MERGE, is_live, stand_in
from modelmerger.config.owners import Owner, UnchosenPlugins, core_owner, structure_by_owner
from modelmerger.config.strict_attrs import show_value
from modelmerger.hooks.plugins import Plugin
from modelmerger.values.errors import Problem
from modelmerger.values.settings import ModelSettings


@frozen(eq=False, repr=False)
class Entry:
    """A model as the config has it."""

    model: ModelSettings
    """What the core knows of it."""
    of_strategy: Any
    """The strategy's options for it; None where the strategy has none."""
    of_plugins: Mapping[str, Any]
    """Those of the plugins that are always on, by their names."""


def read_models(
    given: Any,
    strategy: Plugin | None,
    always_on: Iterable[Plugin],
    others: UnchosenPlugins,
    problems: list[Problem],
) -> list[Entry]:
    """The models in the order of the config. If anything is wrong with one, adds to `problems` and returns none."""
    if given is None:
        problems.append(Problem("the key 'models' is missing. Give a list of models, each with a 'path'", "config"))
    elif not is_list(given):
        problems.append(Problem(f"must be a list of models, each with a 'path', got {given!r}", "models"))
    elif not given:
        problems.append(Problem("must hold at least one model", "models"))
    if not given or not is_list(given):
        return []
    chosen = [strategy] if strategy is not None else []
    plugins = [plugin for plugin in (*chosen, *always_on) if plugin.model_options is not None]
    entries = [_read_model(model, f"models[{i}]", plugins, others, problems) for i, model in enumerate(given)]
    found = [entry for entry in entries if entry is not None]
    names = [entry.model.name for entry in found if entry.model.name]
    problems += [
        Problem(f"two models are named '{name}'. Give each a name of its own", "models")
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    return found if len(found) == len(entries) else []


def without_path(given: Any) -> list[Problem]:
    """What stands against a list of models of which the paths alone are known."""
    if not is_list(given):
        return [Problem(f"must be a list of models, each with a 'path', got {show_value(given)}", "models")]
    if not given:
        return [Problem("must hold at least one model", "models")]
    found = [_no_entry(model, f"models[{i}]") for i, model in enumerate(given)]
    missing = [
        Problem("the key 'path' is missing", f"models[{i}]")
        for i, model in enumerate(given)
        if found[i] is None and not (is_live(path := model.get("path")) or isinstance(path, str | os.PathLike))
    ]
    return [problem for problem in found if problem is not None] + missing


def is_list(value: Any) -> bool:
    """Whether this is a list or tuple, not a text."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def _read_model(
    given: Any, where: str, plugins: Sequence[Plugin], others: UnchosenPlugins, problems: list[Problem]
) -> Entry | None:
    """plugins: those that have options of models."""
    if (problem := _no_entry(given, where)) is not None:
        problems.append(problem)
        return None
    owners = [Owner(plugin.key, str(plugin.provider), plugin.model_options or object) for plugin in plugins]
    before = len(problems)
    values = structure_by_owner(given, [core_owner(ModelSettings), *owners], where, others, problems)
    if len(problems) > before:
        return None
    told = {plugin.provider: values[plugin.key] for plugin in plugins}
    of_strategy = [options for provider, options in told.items() if provider.kind == "strategy"]
    of_plugins = {provider.name: options for provider, options in told.items() if provider.kind != "strategy"}
    return Entry(values[""], next(iter(of_strategy), None), of_plugins)


def _no_entry(given: Any, where: str) -> Problem | None:
    """What to say of an entry of `models` that is no mapping with a path, or has something else in the path's place."""
    if is_live(given) and not (isinstance(given, Mapping) and "path" in given):
        message = f"must be a mapping with a 'path', got {stand_in(given)}. Write it as {{'path': …}}"
        return Problem(message, where)
    if not isinstance(given, Mapping):
        hint = f". Write it as path: {given}" if isinstance(given, str) else ""
        return Problem(f"must be a mapping with a 'path', got {show_value(given)}{hint}", where)
    path = given.get("path")
    return Problem(_without_tensors(path), f"{where}.path") if isinstance(path, Mapping) and not is_live(path) else None


def _without_tensors(path: Mapping[Any, Any]) -> str:
    """What to say of a mapping in the place of a path that is no model in memory."""
    inner = next((key for key, value in path.items() if is_live(value)), None)
    if inner is not None:
        return f"has no tensors of its own, but under {inner!r}. Give what is there"
    if MERGE in path:
        return "is a merge. Give it as 'merge', in place of 'path'"
    if any(type(value).__module__ == "numpy" for value in path.values()):
        return "holds arrays of numpy, and a model in memory is a mapping to tensors. Make them with torch.from_numpy"
    return "is a mapping without tensors. Give a path, or a mapping of names to tensors"
