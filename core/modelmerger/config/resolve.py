"""Resolves a config: assembles the plugins that it names, hands options to their owners, and reports every problem."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve

from modelmerger.config.expanding.entries import Expanded, expand
from modelmerger.config.found_merges import Found, nameless, read_named, take_out
from modelmerger.config.models_in_memory import MERGES, set_apart
from modelmerger.config.one_merge import Merge, Run, read_merge, read_no_merge, read_options, settings_of, unmet
from modelmerger.config.owners import declared_fields, with_places
from modelmerger.config.plugins_in_process import name_plugins
from modelmerger.config.sections import CORE_KEYS
from modelmerger.config.strict_attrs import unknown_key, unknown_keys
from modelmerger.config.unused_plugins import unused
from modelmerger.config.validation_settings import KEY as VALIDATION
from modelmerger.config.validation_settings import read_validation
from modelmerger.hooks.assembly import Hooks, assemble, with_executor
from modelmerger.hooks.plugins import Plugin, option_names
from modelmerger.hooks.providers import Provider
from modelmerger.hooks.registry import Registry
from modelmerger.values.errors import ConfigError, Problem, raise_errors
from modelmerger.values.options.core import CoreOptions
from modelmerger.values.settings import BASE, ModelSettings, Settings, ValidationSettings

if TYPE_CHECKING:
    from modelmerger.config.inner_merges import Resolved


def resolve(
    given: Mapping[str, Any],
    registry: Registry | None = None,
    *,
    validating: bool = False,
    notes: Sequence[Problem] = (),
    strict: bool = False,
    file: str = "",
    opened: bool = False,
) -> tuple[Settings, Hooks]:
    """The settings of a config, and the plugins of its run. Raises `ConfigError` with every problem.

    registry: the plugins that may be named; those that are installed, unless given. validating: whether there is a
    validation even if the config does not ask for one. notes: what is to be said of how the config was read. strict:
    whether warnings are errors. file: that the config was read from. opened: whether paths are names of models that are
    open already, which stand for nothing else.
    """
    given, handed_over = name_plugins(given)
    registry = (registry or Registry.installed()).with_given(handed_over)
    run = Run.of(registry)
    expanded = Expanded(given) if opened else expand(given, run)
    plain, live = set_apart(expanded.given)
    problems = list(expanded.problems)
    try:
        settings, hooks = _resolve(
            plain, live, handed_over, run, problems, validating=validating, notes=notes, strict=strict
        )
    except ConfigError as error:
        explaining = [plugin for plugin in run.always_on if "explain_config" in plugin.hooks]
        found = with_places(expanded.as_given(error.problems), _places(run))
        raise ConfigError(*assemble(explaining).models.explain_config(set_apart(given)[0], found)) from error
    return evolve(settings, file=file, notes=tuple(expanded.as_given(settings.notes))), hooks


def _resolve(
    given: Mapping[str, Any],
    live: Mapping[str, Any],
    handed_over: Iterable[Provider],
    run: Run,
    problems: list[Problem],
    *,
    validating: bool,
    notes: Sequence[Problem],
    strict: bool,
) -> tuple[Settings, Hooks]:
    """given: the config, with texts for what `live` and `handed_over` hold. problems: what is known to be wrong."""
    registry = run.registry
    running, executor = _with_executor(given.get("options"), registry, run.always_on, problems)
    problems += _unknown_keys(given, run, running)
    names = read_named(given.get(MERGES), problems)
    plain, found = take_out(given, names, "", problems)
    merge = read_merge(plain, run, problems)
    validation = read_validation(plain.get(VALIDATION), registry, problems, validating=validating)
    shared = read_options(merge, plain.get("options"), run, running, problems)
    inner, about_inner = _inner_merges(found, names, live, shared, run, problems, strict=strict)
    if merge.strategy is None:
        raise ConfigError(*problems)
    handed = {key: value for key, value in shared.items() if value is not None} | validation.options
    plugins = [merge.strategy, *validation.validators, *running]
    hooks = assemble(plugins, handed, executor)
    problems += (against := unmet(merge, hooks.strategy, shared.get(merge.strategy.key), run.sections))
    if against or not merge.has_settings or shared[""] is None or len(inner) < len(found):
        raise ConfigError(*problems)
    settings = evolve(
        settings_of(merge, given, shared, run, live, nameless(found, live)),
        validation=validation.settings,
        merges={key: one.settings for key, one in inner.items()},
        strict=strict,
        acts_on_base=hooks.strategy.traits.wants_base,
    )
    executors = [plugin for plugin in running if plugin not in run.always_on]
    settings = evolve(settings, given=_decisive(settings.given, executors))
    hooks = evolve(hooks, merges={key: one.hooks for key, one in inner.items()})
    took_part = dict.fromkeys([*hooks.all_providers, *(plugin.provider for plugin in validation.validators)])
    used = {*took_part, *(plugin.provider for plugin in executors), *handed_over}
    said = [*notes, *about_inner, *unused(registry, used, settings.strategy)]
    said += hooks.models.check_config(settings, _unsound(plugins, shared, merge))
    raise_errors([*problems, *said], ConfigError, strict=strict)
    of_process = {f"{p.kind} '{p.name}'": p.digest for p in took_part if p.digest}
    return evolve(settings, notes=tuple(said), of_process=of_process), hooks


def _inner_merges(
    found: Mapping[str, Found],
    names: Mapping[str, Any],
    live: Mapping[str, Any],
    shared: Mapping[str, Any],
    run: Run,
    problems: list[Problem],
    *,
    strict: bool,
) -> "tuple[dict[str, Resolved], list[Problem]]":
    """The merges within the merge, by the keys of its models, and warnings about them. Most configs have none."""
    if not found and not names:
        return {}, []
    from modelmerger.config.inner_merges import InnerMerges

    nested = InnerMerges(run, names, live, strict=strict)
    return nested.resolve_all(found, shared, problems), nested.notes


def _places(run: Run) -> dict[str, list[str]]:
    """The keys that each mapping of a config has whatever the strategy is, by what is said of where to write one."""
    options = (CoreOptions, *(plugin.options for plugin in run.always_on if plugin.options))
    sections = {f"under {section.name}": option_names(section.options) for section in run.sections}
    return {
        "under options": [name for cls in options for name in option_names(cls)],
        **sections,
        f"under {VALIDATION}": option_names(ValidationSettings),
        "beside the path of a model, in models": option_names(ModelSettings),
    }


def _unknown_keys(given: Mapping[str, Any], run: Run, running: Iterable[Plugin]) -> Iterator[Problem]:
    """One problem for each top-level key that is none; of an option, that it is one."""
    known = (*CORE_KEYS, *(section.name for section in run.sections))
    strategies = [provider for provider in run.registry.providers if provider.kind == "strategy"]
    for key in (key for key in given if key not in known):
        declared = [option_names(options) for options in (CoreOptions, *(p.options for p in running)) if options]
        declared += [list(declared_fields(strategy.module, "Options")) for strategy in strategies]
        if any(key in names for names in declared):
            yield Problem(f"{key!r} is an option. Write it under options", "config")
        else:
            yield from unknown_keys([key], known, "config")


def resolve_validation(
    given: Mapping[str, Any],
    registry: Registry | None = None,
    *,
    notes: Sequence[Problem] = (),
    strict: bool = False,
    file: str = "",
) -> tuple[Settings | None, ValidationSettings, Hooks, Sequence[Problem]]:
    """How a model is validated: settings of the merge, settings of the validation, plugins, and
    what is to be said.

    given: the config of a merge, or one without: `validation`, `options`, `base_model` and sections of plugins; its
    settings have no models, and there are none for `validation` alone. The others are as in `resolve`. Raises
    `ConfigError` with every problem.
    """
    registry = registry or Registry.installed()
    run = Run.of(registry)
    problems = with_places([*_unknown_keys(given, run, run.always_on)], _places(run))
    of_merges = {*CORE_KEYS} - {VALIDATION, "options", BASE}
    if given.keys() & of_merges or any(map(unknown_key, problems)):  # else a key only stands in the wrong place
        settings, hooks = resolve(given, registry, validating=True, notes=notes, strict=strict, file=file)
        return settings, settings.validation or ValidationSettings(), hooks, settings.notes
    validation = read_validation(given.get(VALIDATION), registry, problems, validating=True)
    around, shared = read_no_merge(given, run, problems)
    if problems or validation.settings is None:
        raise ConfigError(*problems)
    said = [*notes, *unused(registry, {validator.provider for validator in validation.validators})]
    raise_errors(said, ConfigError, strict=strict)
    handed = {key: value for key, value in shared.items() if value is not None} | validation.options
    around_it = settings_of(around, given, shared, run, {}, ()) if given.keys() - {VALIDATION} else None
    return around_it, validation.settings, assemble([*validation.validators, *run.always_on], handed), said


def _unsound(plugins: Iterable[Plugin], shared: Mapping[str, Any], merge: Merge) -> list[str]:
    """The keys of plugins whose own options or sections are wrong, so that they cannot be asked about the config."""
    wrong = {key for key, value in merge.sections.items() if value is None and merge.given.get(key) not in (None, {})}
    return [
        plugin.key
        for plugin in plugins
        if shared.get(plugin.key, plugin) is None or wrong & {section.name for section in plugin.sections}
    ]


def _with_executor(
    options: Any, registry: Registry, always_on: Sequence[Plugin], problems: list[Problem]
) -> tuple[Sequence[Plugin], str | None]:
    """The plugins besides strategy and validators, and the key of the executor among them that the config names."""
    named = options.get("executor") if isinstance(options, Mapping) else None
    if not isinstance(named, str) or not named:
        return always_on, None
    try:
        return with_executor(always_on, registry.find("executor", named))
    except ConfigError as error:
        problems += [evolve(problem, where="options.executor") for problem in error.problems]
        return always_on, None


def _decisive(given: Mapping[str, Any], executors: Iterable[Plugin]) -> dict[str, Any]:
    """The config as the manifest keeps it: without who executes it, and how, and which way bytes go."""
    how = {
        "executor",
        "io",
        "memory",
        *(name for plugin in executors if plugin.options for name in option_names(plugin.options)),
    }
    kept = dict(given)
    if how & kept.get("options", {}).keys():
        kept["options"] = {key: value for key, value in kept["options"].items() if key not in how}
    return {key: value for key, value in kept.items() if value != {}}
