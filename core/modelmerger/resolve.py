"""What a config means: the plugins it names are assembled, its options go to their owners, every problem is said at once."""

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import attrs

from modelmerger.errors import ConfigError, MergeError, PluginError, Problem
from modelmerger.hooks import Hooks, Strategy, assemble, described
from modelmerger.registry import BUILT_IN, Provider, Registry
from modelmerger.settings import CoreOptions, ModelSettings, PeftSettings, Settings, ValidationSettings
from modelmerger.structure import structure, unknown_keys
from modelmerger.text import suggestion

SHAPE_OF_CONFIG = ("strategy", "models", "base_model", "output_path", "options", "peft_config", "validation")


def resolve(given: Mapping[str, Any], registry: Registry | None = None) -> tuple[Settings, Hooks]:
    """The settings that a config stands for, and the plugins of its run. Raises `ConfigError` with every problem."""
    problems = unknown_keys(given, SHAPE_OF_CONFIG, "config")
    problems += _wrong_kinds(given)
    models = _structured_models(given.get("models"), problems)
    peft = _structured(given.get("peft_config"), PeftSettings, "peft_config", problems)
    _structured(given.get("validation"), ValidationSettings, "validation", problems)
    registry = registry or Registry.installed()
    hooks = None
    if isinstance(strategy := given.get("strategy"), str):
        try:
            hooks = assemble(registry, strategy)
        except ConfigError as error:
            problems += error.problems
    if hooks is None:
        raise ConfigError(*problems)
    core, of_strategy, of_plugins = _options(_mapping(given.get("options")), hooks, registry, problems)
    if models:
        problems += _strategy_problems(hooks, models, given.get("base_model"), of_strategy)
    if problems:
        raise ConfigError(*problems)
    settings = Settings(
        strategy=given["strategy"],
        models=tuple(_named(models)),
        base_model=given.get("base_model"),
        output_path=given.get("output_path"),
        options=core,
        strategy_options=of_strategy,
        plugin_options=of_plugins,
        peft=peft,
        given={key: given[key] for key in SHAPE_OF_CONFIG if given.get(key) not in (None, {})},
    )
    return settings, hooks


def base_name(settings: Settings) -> str:
    """The name of the base model: the last part of its path, told apart from the models' names."""
    name = PurePath(settings.base_model or "").name or "base"
    return name if name not in {model.name for model in settings.models} else f"{name} (base)"


def _wrong_kinds(given: Mapping[str, Any]) -> list[Problem]:
    problems = []
    if not isinstance(given.get("strategy"), str):
        problems.append(
            Problem(f"'strategy' must be the name of a strategy, got {given.get('strategy')!r}", "strategy")
        )
    problems += [
        Problem(f"must be a path, got {given[key]!r}", key)
        for key in ("base_model", "output_path")
        if given.get(key) is not None and (not isinstance(given[key], str) or not given[key])
    ]
    if not isinstance(given.get("options") or {}, Mapping):
        problems.append(Problem(f"must be a mapping, got {given['options']!r}", "options"))
    return problems


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _structured_models(given: Any, problems: list[Problem]) -> list[ModelSettings]:
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        problems.append(Problem("must be a list of at least one model, each with a 'path'", "models"))
        return []
    models = [_structured(model, ModelSettings, f"models[{i}]", problems) for i, model in enumerate(given)]
    names = [model.name for model in models if model and model.name]
    problems += [
        Problem(f"two models are named '{name}'. Give each a name of its own", "models")
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    return [model for model in models if model] if all(models) else []


def _structured(given: Any, cls: type, place: str, problems: list[Problem]) -> Any:
    """None where nothing is given, or where it is wrong (then `problems` grows)."""
    if given is None or (given == {} and cls is not ModelSettings):
        return None
    try:
        return structure(given, cls, place)
    except ConfigError as error:
        problems += error.problems
        return None


def _options(
    given: Mapping[str, Any], hooks: Hooks, registry: Registry, problems: list[Problem]
) -> tuple[CoreOptions, Any, dict[str, Any]]:
    """The options by owner: core, strategy, always-on plugins by name."""
    owners: list[tuple[str, Provider | None, type]] = [("core", None, CoreOptions)]
    if hooks.strategy.options is not None:
        owners.append(("strategy", hooks.strategy.provider, hooks.strategy.options))
    owners += [(f"plugin {provider.name}", provider, cls) for provider, cls in hooks.declared_options()]
    owner_of: dict[str, str] = {}
    sources: dict[str, str] = {}
    for owner, provider, cls in owners:
        for field in _option_fields(cls, provider):
            if field in owner_of:
                raise PluginError(
                    f"option '{field}' is declared twice: by {sources[field]} and by {_source(provider)}; "
                    "switch one of them off."
                )
            owner_of[field], sources[field] = owner, _source(provider)
    problems += [_unknown_option(key, owner_of, hooks, registry) for key in given if key not in owner_of]
    values: dict[str, Any] = {}
    for owner, _, cls in owners:
        mine = {key: value for key, value in given.items() if owner_of.get(key) == owner}
        try:
            values[owner] = structure(mine, cls, "options")
        except ConfigError as error:
            problems += error.problems
            values[owner] = None
    core = values.pop("core") or CoreOptions()
    return core, values.pop("strategy", None), {key.removeprefix("plugin "): value for key, value in values.items()}


def _option_fields(cls: type, provider: Provider | None) -> list[str]:
    if not attrs.has(cls):
        raise PluginError(f"{_source(provider)}: the options must be an attrs class, got {cls!r}.")
    return [field.name for field in attrs.fields(cls)]


def _source(provider: Provider | None) -> str:
    return described(provider) if provider else BUILT_IN


def _unknown_option(key: Any, owner_of: Mapping[str, str], hooks: Hooks, registry: Registry) -> Problem:
    """Says which other strategy an option belongs to. Only strategies that come with this package are imported to find out."""
    for provider in registry.providers:
        if provider.kind == "strategy" and provider.built_in and provider != hooks.strategy.provider:
            options = getattr(provider.load(), "Options", None)
            if options is not None and key in _option_fields(options, provider):
                return Problem(
                    f"'{key}' belongs to {provider.name}, and the strategy is {hooks.strategy.provider.name}. Leave it out",
                    "options",
                )
    return Problem(f"unknown key {key!r}{suggestion(str(key), owner_of)}", "options")


def _strategy_problems(hooks: Hooks, models: Sequence[ModelSettings], base_model: Any, options: Any) -> list[Problem]:
    strategy = hooks.strategy
    name = strategy.provider.name
    problems = _count_problems(strategy, len(models))
    if strategy.traits.needs_base and base_model is None:
        problems.append(
            Problem(f"{name} needs base_model. Give the path of the model that the others were tuned from", "config")
        )
    for index, model in enumerate(models):
        if model.operation not in strategy.traits.operations:
            problems.append(
                Problem(f"{name} has no operation '{model.operation}'. Leave it out", f"models[{index}].operation")
            )
    if not problems and strategy.linear and (options is not None or strategy.options is None):
        try:
            hooks.find_coefficients([m.weight for m in models], [m.operation for m in models], options)
        except MergeError as error:
            problems += error.problems
    return problems


def _count_problems(strategy: Strategy, count: int) -> list[Problem]:
    fewest, most = strategy.traits.models
    if fewest <= count and (most is None or count <= most):
        return []
    bounds = f"exactly {_spelled(fewest)}" if fewest == most else f"at least {_spelled(fewest)}"
    if most is not None and count > most and fewest != most:
        bounds = f"at most {_spelled(most)}"
    wanted = fewest if count < fewest else most
    noun = "model" if wanted == 1 else "models"
    return [Problem(f"{strategy.provider.name} merges {bounds} {noun}, {count} given", "models")]


def _spelled(count: int | None) -> str:
    return {1: "one", 2: "two", 3: "three", 4: "four"}.get(count or 0, str(count))


def _named(models: Sequence[ModelSettings]) -> list[ModelSettings]:
    """Every model with a name: the given one, else the last part of its path with as many parents as it takes to be unique."""
    paths = [PurePath(os.path.normpath(os.path.expanduser(model.path))).parts for model in models]
    names: list[str] = []
    for index, model in enumerate(models):
        taken = set(names) | {other.name for other in models if other.name}
        if model.name:
            names.append(model.name)
            continue
        rivals = [path for other, path in enumerate(paths) if other != index and not models[other].name]
        names.append(_unique(paths[index], rivals, taken))
    return [attrs.evolve(model, name=name) for model, name in zip(models, names, strict=True)]


def _unique(path: Sequence[str], rivals: Sequence[Sequence[str]], taken: set[str]) -> str:
    for length in range(1, len(path) + 1):
        name = "/".join(path[-length:])
        if name not in taken and all(rival[-length:] != path[-length:] for rival in rivals):
            return name
    name = path[-1]
    number = 2
    while name in taken:
        name = f"{path[-1]}#{number}"
        number += 1
    return name
