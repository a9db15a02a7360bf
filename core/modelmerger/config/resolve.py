"""Resolves a config: assembles the plugins that it names, hands options to their owners, and reports every problem."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from attrs import evolve

from modelmerger.config.given_models import Entry, is_list, read_models
from modelmerger.config.models_in_memory import set_apart
from modelmerger.config.naming import with_names
from modelmerger.config.owners import UnchosenPlugins, core_owner, owners_of, structure_by_owner
from modelmerger.config.sections import CORE_KEYS, missing_base, read_sections, sections_of
from modelmerger.config.strict_attrs import unknown_keys
from modelmerger.config.validation_settings import KEY as VALIDATION
from modelmerger.config.validation_settings import read_validation
from modelmerger.hooks.assembly import Hooks, assemble, with_executor
from modelmerger.hooks.plugins import Plugin, load, option_names
from modelmerger.hooks.registry import Registry
from modelmerger.hooks.strategy import Strategy
from modelmerger.values.errors import ConfigError, Problem, raise_errors
from modelmerger.values.sections import Section
from modelmerger.values.settings import CoreOptions, Settings, ValidationSettings
from modelmerger.values.weights import varying_fields


def resolve(
    given: Mapping[str, Any], registry: Registry | None = None, *, validating: bool = False
) -> tuple[Settings, Hooks]:
    """The settings of a config, and the plugins of its run. Raises `ConfigError` with every problem.

    validating: whether there is a validation even if the config does not ask for one.
    """
    registry = registry or Registry.installed()
    given, live = set_apart(given)
    problems: list[Problem] = []
    always_on = list(map(load, registry.always_on()))
    running, executor = _with_executor(given.get("options"), registry, always_on, problems)
    sections = sections_of(always_on)
    keys = (*CORE_KEYS, *(section.name for section in sections))
    problems += unknown_keys(given, keys, "config")
    problems += _wrong_kinds(given, registry)
    of_strategy: list[Problem] = []
    strategy = _strategy(given.get("strategy"), registry, of_strategy)
    chosen = [strategy.provider.name] if strategy else []
    models = read_models(
        given.get("models"), strategy, UnchosenPlugins(registry, "strategy", chosen, "ModelOptions"), problems
    )
    problems += of_strategy
    in_sections = read_sections(given, sections, problems)
    validation = read_validation(given.get("validation"), registry, problems, validating=validating)
    plugins = [*([strategy] if strategy else []), *validation.validators, *running]
    options = given.get("options")
    shared = structure_by_owner(
        options if isinstance(options, Mapping) else {},
        [core_owner(CoreOptions), *owners_of([*([strategy] if strategy else []), *running])],
        "options",
        UnchosenPlugins(registry, "strategy", chosen, "Options"),
        problems,
    )
    if strategy is None:
        raise ConfigError(*problems)
    handed = {key: value for key, value in shared.items() if value is not None} | validation.options
    hooks = assemble(plugins, handed, executor)
    problems += _strategy_problems(hooks.strategy, given.get("models"), models, shared)
    problems += _base_problems(hooks.strategy, given, sections)
    if problems:
        raise ConfigError(*problems)
    settings = Settings(
        strategy=given["strategy"],
        models=tuple(with_names([model for model, _ in models], live)),
        model_options=tuple(of_strategy for _, of_strategy in models),
        base_model=given.get("base_model"),
        output_path=given.get("output_path"),
        options=shared[""],
        strategy_options=shared.get(strategy.key),
        plugin_options={p.provider.name: shared[p.key] for p in always_on if p.key in shared},
        sections=in_sections,
        validation=validation.settings,
        given=_decisive(given, as_written(in_sections), [plugin for plugin in running if plugin not in always_on]),
        live=live,
    )
    raise_errors(hooks.models.check_config(settings), ConfigError)
    return settings, hooks


def resolve_validation(given: Mapping[str, Any]) -> tuple[Settings | None, ValidationSettings, Hooks]:
    """How a model is validated: settings of the merge, settings of the validation, and plugins.

    given: the config of a merge, or one with `validation` alone, for which there are no settings of a merge. Raises
    `ConfigError` with every problem.
    """
    if given.keys() - {VALIDATION}:
        settings, hooks = resolve(given, validating=True)
        return settings, settings.validation or ValidationSettings(), hooks
    registry = Registry.installed()
    problems: list[Problem] = []
    validation = read_validation(given.get(VALIDATION), registry, problems, validating=True)
    if problems or validation.settings is None:
        raise ConfigError(*problems)
    plugins = [*validation.validators, *map(load, registry.always_on())]
    return None, validation.settings, assemble(plugins, validation.options)


def as_written(sections: Iterable[str]) -> list[str]:
    """The keys of a config with these sections, in the order in which a config is written."""
    return [*CORE_KEYS[:-1], *sections, CORE_KEYS[-1]]


def _strategy(given: Any, registry: Registry, problems: list[Problem]) -> Plugin | None:
    """The strategy's plugin; None where there is none of that name, which `problems` gets."""
    if not isinstance(given, str):
        return None
    try:
        return load(registry.find("strategy", given))
    except ConfigError as error:
        problems += error.problems
        return None


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


def _with_executor(
    options: Any, registry: Registry, always_on: list[Plugin], problems: list[Problem]
) -> tuple[list[Plugin], str | None]:
    """The plugins besides strategy and validators, and the key of the executor among them that the config names."""
    named = options.get("executor") if isinstance(options, Mapping) else None
    if not isinstance(named, str) or not named:
        return always_on, None
    try:
        return with_executor(always_on, registry.find("executor", named))
    except ConfigError as error:
        problems += [evolve(problem, where="options.executor") for problem in error.problems]
        return always_on, None


def _decisive(given: Mapping[str, Any], keys: Iterable[str], executors: Iterable[Plugin]) -> dict[str, Any]:
    """The config as the manifest keeps it: without what it leaves empty, and without who executes it, and how."""
    kept = {key: deepcopy(given[key]) for key in keys if given.get(key) not in (None, {})}
    how = {"executor", *(name for plugin in executors if plugin.options for name in option_names(plugin.options))}
    if how & kept.get("options", {}).keys():
        kept["options"] = {key: value for key, value in kept["options"].items() if key not in how}
    return {key: value for key, value in kept.items() if value != {}}


def _base_problems(strategy: Strategy, given: Mapping[str, Any], sections: Sequence[Section]) -> list[Problem]:
    """A problem if the strategy needs a base that neither the config nor the models, not open yet, can give."""
    may_come = any(section.brings_base and given.get(section.name) for section in sections)
    if given.get("base_model") is None and not may_come and strategy.traits.wants_base:
        return [missing_base(strategy.name, sections)]
    return []


def _strategy_problems(
    strategy: Strategy, given: Any, models: Sequence[Entry], shared: Mapping[str, Any]
) -> list[Problem]:
    """Problems with the number of models, and with their weights. models: empty where one of them is wrong."""
    problems = _count_problems(strategy, len(given)) if given and is_list(given) else []
    weights = [model.weight for model, _ in models if isinstance(model.weight, float)]
    options = shared.get(strategy.plugin.key)
    sound = options is not None or strategy.plugin.options is None
    # other weights than numbers mean something only to tensors: the plan checks them
    told = [of_strategy for _, of_strategy in models]
    plain = all(isinstance(number, float) for given in (options, *told) for _, number in varying_fields(given))
    if models and len(weights) == len(models) and not problems and strategy.linear and sound and plain:
        try:
            strategy.find_coefficients(weights, told, options)
        except ConfigError as error:
            problems += [problem if problem.where else evolve(problem, where="models") for problem in error.problems]
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
    return [Problem(f"{strategy.name} merges {bounds} {noun}, {count} given", "models")]


def _spelled(count: int | None) -> str:
    return {1: "one", 2: "two", 3: "three", 4: "four"}.get(count or 0, str(count))
