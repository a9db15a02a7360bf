"""The `validation` of a config: which validators run, and what the core and each of them is told."""

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

WHERE = "validation"


@frozen
class Validation:
    """A validation as the config asks for it."""

    settings: ValidationSettings | None = None
    """None where the config says nothing of one, or something wrong."""
    validators: tuple[Plugin, ...] = ()
    """Those that run."""
    options: dict[str, Any] = field(factory=dict)
    """What each of them is told, by the key of the plugin."""


NO_VALIDATION = Validation()


def read_validation(given: Any, registry: Registry, problems: list[Problem], *, validating: bool = False) -> Validation:
    """What a config says of a validation; nothing where it says something wrong (then `problems` grows).

    `validating`: whether one takes place also where nothing is said of it.
    """
    before = len(problems)
    if given is None or given == {}:
        if not validating:
            return NO_VALIDATION
        given = {}
    if not isinstance(given, Mapping):
        problems.append(Problem(f"must be a mapping, got {show_value(given)}", WHERE))
        return NO_VALIDATION
    plugins = _chosen(given, registry, problems)
    elsewhere = UnchosenPlugins(registry, "validator", [plugin.provider.name for plugin in plugins], "Options")
    values = structure_by_owner(
        given, [core_owner(ValidationSettings), *owners_of(plugins)], WHERE, elsewhere, problems
    )
    settings = values.pop("")
    if len(problems) > before:
        return NO_VALIDATION
    problems += _unknown_metrics(settings, plugins)
    return Validation(settings, tuple(plugins), values)


def _chosen(given: Mapping[str, Any], registry: Registry, problems: list[Problem]) -> list[Plugin]:
    """The validators that the config names, each once; where it names none, those that want to run by default."""
    names = given.get("metrics")
    if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
        return list(_named(dict.fromkeys(names), registry, problems))
    core = {key: value for key, value in given.items() if key in option_names(ValidationSettings)}
    try:
        values = structure_by_owner(
            core, [core_owner(ValidationSettings)], WHERE, UnchosenPlugins(registry, "validator", [], ""), []
        )
    except ConfigError:
        return []
    if values[""] is None:
        return []
    asked = {plugin.key: plugin for plugin in map(load, registry.default_validators())}
    return [asked[key] for key in assemble(list(asked.values())).validation.wanted(values[""])]


def _named(names: Iterable[str], registry: Registry, problems: list[Problem]) -> Iterable[Plugin]:
    for name in names:
        try:
            yield load(registry.find("validator", name))
        except ConfigError as error:
            problems += [evolve(problem, where=f"{WHERE}.metrics") for problem in error.problems]


def _unknown_metrics(settings: ValidationSettings, plugins: Iterable[Plugin]) -> Iterable[Problem]:
    """Thresholds for what no validator of this run finds."""
    found = assemble(list(plugins)).validation
    known = found.metrics
    for name in settings.thresholds or {}:
        if name not in known:
            names = ", ".join(found.validators)
            who = f"{names} {'find' if len(found.validators) > 1 else 'finds'}"
            message = f"no metric is named '{name}'{suggestion(name, known)} ({who} {', '.join(known)})"
            yield Problem(message, f"{WHERE}.thresholds")
