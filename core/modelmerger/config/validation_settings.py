"""The `validation` of a config: which validators run, and the options of the core and of each of them."""

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve, field, frozen

from modelmerger.config.owners import UnchosenPlugins, core_owner, owners_of, structure_by_owner
from modelmerger.config.strict_attrs import show_value
from modelmerger.hooks.assembly import assemble
from modelmerger.hooks.plugins import Plugin, load, option_names
from modelmerger.hooks.registry import Registry
from modelmerger.values.errors import ConfigError, Problem
from modelmerger.values.settings import ValidationSettings
from modelmerger.values.text import suggestion

KEY = "validation"


@frozen(eq=False, repr=False)
class Validation:
    """A validation as the config asks for it."""

    settings: ValidationSettings | None = None
    """None where the config asks for no validation, or something is wrong."""
    validators: tuple[Plugin, ...] = ()
    """Those that run."""
    options: dict[str, Any] = field(factory=dict)
    """The options of each of them, by the key of the plugin."""


NO_VALIDATION = Validation()


def read_validation(given: Any, registry: Registry, problems: list[Problem], *, validating: bool = False) -> Validation:
    """The validation that a config asks for; an empty one where something is wrong, which `problems` gets.

    validating: whether there is a validation even if the config does not ask for one.
    """
    before = len(problems)
    if given is None or given == {}:
        if not validating:
            return NO_VALIDATION
        given = {}
    if not isinstance(given, Mapping):
        problems.append(Problem(f"must be a mapping, got {show_value(given)}", KEY))
        return NO_VALIDATION
    plugins = _chosen(given, registry, problems)
    others = UnchosenPlugins(registry, "validator", [plugin.provider.name for plugin in plugins], "Options")
    all_known = len(problems) == before
    values = structure_by_owner(given, [core_owner(ValidationSettings), *owners_of(plugins)], KEY, others, problems)
    settings = values.pop("")
    if settings is not None and all_known:
        try:
            problems += _unknown_metrics(settings, plugins, values)
        except ConfigError as error:
            problems += error.problems
    return Validation(settings, tuple(plugins), values) if len(problems) == before else NO_VALIDATION


def _chosen(given: Mapping[str, Any], registry: Registry, problems: list[Problem]) -> list[Plugin]:
    """The validators that the config names, each once; if it names none, those that want to run by default."""
    names = given.get("metrics")
    if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
        return list(_load_named(dict.fromkeys(names), registry, problems))
    asked = {plugin.key: plugin for plugin in map(load, registry.default_validators())}
    owners = [core_owner(ValidationSettings), *owners_of(list(asked.values()))]
    classes = [ValidationSettings, *(plugin.options for plugin in asked.values() if plugin.options)]
    theirs = {name for cls in classes for name in option_names(cls)}
    known = {key: value for key, value in given.items() if key in theirs}
    try:  # what is wrong is said when it is known which of them run
        values = structure_by_owner(known, owners, KEY, UnchosenPlugins(registry, "validator", [], ""), [])
    except ConfigError:
        return []
    settings = values.pop("")
    if settings is None:
        return []
    options = {key: value for key, value in values.items() if value is not None}
    return [asked[key] for key in assemble(list(asked.values()), options).validation.wanted(settings)]


def _load_named(names: Iterable[str], registry: Registry, problems: list[Problem]) -> Iterable[Plugin]:
    for name in names:
        try:
            yield load(registry.find("validator", name))
        except ConfigError as error:
            problems += [evolve(problem, where=f"{KEY}.metrics") for problem in error.problems]


def _unknown_metrics(
    settings: ValidationSettings, plugins: Iterable[Plugin], options: Mapping[str, Any]
) -> Iterable[Problem]:
    """One problem for each threshold of a metric that no validator of this run finds. options: of each of them.

    Raises what a validator says is wrong with its options: `ConfigError`.
    """
    given = {key: value for key, value in options.items() if value is not None}
    found = assemble(list(plugins), given).validation
    known = found.metrics
    for name in settings.thresholds or {}:
        if name not in known:
            names = ", ".join(found.validators)
            who = f"{names} {'find' if len(found.validators) > 1 else 'finds'}"
            message = f"no metric is named '{name}'{suggestion(name, known)} ({who} {', '.join(known)})"
            yield Problem(message, f"{KEY}.thresholds")
