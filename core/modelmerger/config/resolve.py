"""What a config means: the plugins it names are assembled, its options go to their owners, every problem is said at once."""

import os
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import attrs

from modelmerger.config.models_in_memory import set_apart
from modelmerger.config.naming import named
from modelmerger.config.strict_attrs import described_value, structure, unknown_keys
from modelmerger.hooks.assembly import assemble
from modelmerger.hooks.calls import Hooks, Strategy, described
from modelmerger.hooks.registry import BUILT_IN, Provider, Registry
from modelmerger.values.errors import ConfigError, PluginError, Problem
from modelmerger.values.settings import CoreOptions, ModelSettings, PeftSettings, Settings, ValidationSettings
from modelmerger.values.text import suggestion

NEEDS_BASE = "{} needs base_model. Give the path of the model that the others were tuned from; adapters know theirs, given a peft_config"
SHAPE_OF_CONFIG = ("strategy", "models", "base_model", "output_path", "options", "peft_config", "validation")


def resolve(given: Mapping[str, Any], registry: Registry | None = None) -> tuple[Settings, Hooks]:
    """The settings that a config stands for, and the plugins of its run. Raises `ConfigError` with every problem."""
    registry = registry or Registry.installed()
    given, live = set_apart(given)
    problems = unknown_keys(given, SHAPE_OF_CONFIG, "config")
    problems += _wrong_kinds(given, registry)
    models = _structured_models(given.get("models"), problems)
    peft = _structured(given.get("peft_config"), PeftSettings, "peft_config", problems)
    validation = validation_settings(given.get("validation"), registry, problems)
    hooks = None
    if isinstance(strategy := given.get("strategy"), str):
        try:
            hooks = assemble(registry, strategy)
        except ConfigError as error:
            problems += error.problems
    options = _mapping(given.get("options"))
    if hooks is None:
        known = {field.name for field in attrs.fields(CoreOptions)}
        _structured({k: v for k, v in options.items() if k in known}, CoreOptions, "options", problems)
        raise ConfigError(*problems)
    core, of_strategy, of_plugins = _options(options, hooks, registry, problems)
    problems += _strategy_problems(hooks, registry, given, models, of_strategy)
    problems += _base_problems(hooks, given.get("base_model"), peft)
    if problems:
        raise ConfigError(*problems)
    settings = Settings(
        strategy=given["strategy"],
        models=tuple(named(models, live)),
        base_model=given.get("base_model"),
        output_path=given.get("output_path"),
        options=core,
        strategy_options=of_strategy,
        plugin_options=of_plugins,
        peft=peft,
        validation=validation,
        given={key: deepcopy(given[key]) for key in SHAPE_OF_CONFIG if given.get(key) not in (None, {})},
        live=live,
    )
    return settings, hooks


def _wrong_kinds(given: Mapping[str, Any], registry: Registry) -> list[Problem]:
    problems = []
    strategy = given.get("strategy")
    if strategy is None:
        names = ", ".join(registry.names("strategy"))
        problems.append(Problem(f"the key 'strategy' is missing. Installed are {names}", "config"))
    elif not isinstance(strategy, str):
        problems.append(Problem(f"must be the name of a strategy, got {strategy!r}", "strategy"))
    for key in ("base_model", "output_path"):
        path = given.get(key)
        if path is not None and not isinstance(path, str):
            problems.append(Problem(f"must be a path, as a text, got {path!r}", key))
        elif path == "":
            problems.append(Problem("must not be empty. Give a path, or leave it out", key))
    if not isinstance(given.get("options", {}), Mapping | None):
        problems.append(Problem(f"must be a mapping, got {given['options']!r}", "options"))
    return problems


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _structured_models(given: Any, problems: list[Problem]) -> list[ModelSettings]:
    if given is None:
        problems.append(Problem("the key 'models' is missing. Give a list of models, each with a 'path'", "config"))
    elif not _is_list(given):
        problems.append(Problem(f"must be a list of models, each with a 'path', got {given!r}", "models"))
    elif not given:
        problems.append(Problem("must hold at least one model", "models"))
    if not given or not _is_list(given):
        return []
    models = [_structured_model(model, f"models[{i}]", problems) for i, model in enumerate(given)]
    names = [model.name for model in models if model and model.name]
    problems += [
        Problem(f"two models are named '{name}'. Give each a name of its own", "models")
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    return [model for model in models if model] if all(models) else []


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _structured_model(given: Any, place: str, problems: list[Problem]) -> Any:
    if not isinstance(given, Mapping):
        hint = f". Write it as path: {given}" if isinstance(given, str) else ""
        problems.append(Problem(f"must be a mapping with a 'path', got {described_value(given)}{hint}", place))
        return None
    return _structured(given, ModelSettings, place, problems)


def _structured(given: Any, cls: type, place: str, problems: list[Problem]) -> Any:
    """None where nothing is given, or where it is wrong (then `problems` grows)."""
    if given is None or (given == {} and cls is not ModelSettings):
        return None
    try:
        return structure(given, cls, place)
    except ConfigError as error:
        problems += error.problems
        return None


def validation_settings(given: Any, registry: Registry, problems: list[Problem]) -> ValidationSettings | None:
    """None where nothing is given, or where it is wrong (then `problems` grows): names of validators and metrics too."""
    settings: ValidationSettings | None = _structured(given, ValidationSettings, "validation", problems)
    if settings is None:
        return None
    before = len(problems)
    for name in settings.validator_names:
        try:
            registry.find("validator", name)
        except ConfigError as error:
            problems += [attrs.evolve(problem, where="validation.metrics") for problem in error.problems]
    if len(problems) > before:
        return None
    known = assemble(registry, None, settings.validator_names).metrics
    for name in settings.thresholds or {}:
        if name not in known:
            found = f"{', '.join(settings.validator_names)} {'find' if len(settings.validator_names) > 1 else 'finds'}"
            message = f"no metric is named '{name}'{suggestion(name, known)} ({found} {', '.join(known)})"
            problems.append(Problem(message, "validation.thresholds"))
    return settings


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


def _option_fields(cls: Any, provider: Provider | None) -> list[str]:
    if not isinstance(cls, type) or not attrs.has(cls):
        raise PluginError(f"{_source(provider)}: the options must be an attrs class, got {cls!r}.")
    try:
        return [field.name for field in attrs.fields(attrs.resolve_types(cls))]
    except NameError as error:
        raise PluginError(f"{_source(provider)}: the types of its options cannot be resolved: {error}.") from error


def _source(provider: Provider | None) -> str:
    return described(provider) if provider else BUILT_IN


def _unknown_option(key: Any, owner_of: Mapping[str, str], hooks: Hooks, registry: Registry) -> Problem:
    """Says which other strategy an option belongs to. Only strategies that come with this package are imported to find out."""
    for provider, module in _other_built_ins(hooks, registry):
        options = getattr(module, "Options", None)
        if options is not None and key in _option_fields(options, provider):
            return Problem(
                f"'{key}' belongs to {provider.name}, and the strategy is {hooks.strategy.provider.name}. Leave it out",
                "options",
            )
    return Problem(f"unknown key {key!r}{suggestion(str(key), owner_of)}", "options")


def _base_problems(hooks: Hooks, base_model: Any, peft: PeftSettings | None) -> list[Problem]:
    """A strategy that needs a base may get it from adapters: whether there are any is seen when models are opened."""
    if base_model is None and peft is None and hooks.strategy.traits.needs_base:
        return [Problem(NEEDS_BASE.format(hooks.strategy.provider.name), "config")]
    of_adapters = peft.base_model_path if peft else None
    if isinstance(base_model, str) and of_adapters is not None and not _is_one_path(base_model, of_adapters):
        message = f"is {of_adapters!r}, and base_model is {base_model!r}. Give the same path, or one of them"
        return [Problem(message, "peft_config.base_model_path")]
    return []


def _is_one_path(left: str, right: str) -> bool:
    return left == right or os.path.abspath(os.path.expanduser(left)) == os.path.abspath(os.path.expanduser(right))


def _other_built_ins(hooks: Hooks, registry: Registry) -> Iterator[tuple[Provider, Any]]:
    for provider in registry.providers:
        if provider.kind == "strategy" and provider.built_in and provider != hooks.strategy.provider:
            yield provider, provider.load()


def _strategy_problems(
    hooks: Hooks, registry: Registry, given: Mapping[str, Any], models: Sequence[ModelSettings], options: Any
) -> list[Problem]:
    """`models` is empty where one of them is wrong; how many were given is counted all the same."""
    strategy = hooks.strategy
    name = strategy.provider.name
    counted = given.get("models")
    problems = _count_problems(strategy, len(counted)) if counted and _is_list(counted) else []
    for index, model in enumerate(models):
        if model.operation not in strategy.traits.operations:
            owners = [
                f"'{model.operation}' belongs to {provider.name}, and the strategy is {name}. Leave it out"
                for provider, module in _other_built_ins(hooks, registry)
                if model.operation in module.traits.operations
            ]
            message = [*owners, f"{name} has no operation '{model.operation}'. Leave it out"][0]
            problems.append(Problem(message, f"models[{index}].operation"))
    weights = [model.weight for model in models if isinstance(model.weight, float)]
    # other weights than numbers mean something only to tensors: the plan checks them
    if (
        models
        and len(weights) == len(models)
        and not problems
        and strategy.linear
        and (options is not None or strategy.options is None)
    ):
        try:
            hooks.find_coefficients(weights, [m.operation for m in models], options)
        except ConfigError as error:
            problems += [
                problem if problem.where else attrs.evolve(problem, where="models") for problem in error.problems
            ]
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
