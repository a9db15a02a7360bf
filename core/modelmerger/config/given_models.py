"""The `models` of a config: mappings with a path, and with what the strategy wants to know of a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelmerger.config.owners import Owner, UnchosenPlugins, core_owner, structure_by_owner
from modelmerger.config.strict_attrs import show_value
from modelmerger.hooks.plugins import Plugin
from modelmerger.values.errors import Problem
from modelmerger.values.settings import ModelSettings

Entry = tuple[ModelSettings, Any]
"""What the core knows of a model, and the strategy's options for it."""


def read_models(given: Any, strategy: Plugin | None, others: UnchosenPlugins, problems: list[Problem]) -> list[Entry]:
    """The models in the order of the config. If anything is wrong with one, adds to `problems` and returns none."""
    if given is None:
        problems.append(Problem("the key 'models' is missing. Give a list of models, each with a 'path'", "config"))
    elif not is_list(given):
        problems.append(Problem(f"must be a list of models, each with a 'path', got {given!r}", "models"))
    elif not given:
        problems.append(Problem("must hold at least one model", "models"))
    if not given or not is_list(given):
        return []
    owners = [core_owner(ModelSettings)]
    if strategy is not None and strategy.model_options is not None:
        owners.append(Owner(strategy.key, str(strategy.provider), strategy.model_options))
    entries = [_read_model(model, f"models[{i}]", owners, others, problems) for i, model in enumerate(given)]
    found = [entry for entry in entries if entry is not None]
    names = [model.name for model, _ in found if model.name]
    problems += [
        Problem(f"two models are named '{name}'. Give each a name of its own", "models")
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    return found if len(found) == len(entries) else []


def is_list(value: Any) -> bool:
    """Whether this is a list or tuple, not a text."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def _read_model(
    given: Any, where: str, owners: Sequence[Owner], others: UnchosenPlugins, problems: list[Problem]
) -> Entry | None:
    if not isinstance(given, Mapping):
        hint = f". Write it as path: {given}" if isinstance(given, str) else ""
        problems.append(Problem(f"must be a mapping with a 'path', got {show_value(given)}{hint}", where))
        return None
    before = len(problems)
    values = structure_by_owner(given, owners, where, others, problems)
    return (values.pop(""), next(iter(values.values()), None)) if len(problems) == before else None
