"""One merge of a config, be it the outermost or one within it: what every merge has, and what must hold for it."""

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from attrs import evolve, frozen

from modelmerger.config.given_models import Entry, is_list, read_models
from modelmerger.config.naming import with_names
from modelmerger.config.owners import Owner, UnchosenPlugins, core_owner, owners_of, structure_by_owner
from modelmerger.config.sections import as_written, missing_base, read_sections, sections_of
from modelmerger.hooks.plugins import Plugin, load
from modelmerger.hooks.registry import Registry
from modelmerger.hooks.strategy import Strategy
from modelmerger.values.errors import ConfigError, Problem
from modelmerger.values.options.core import CoreOptions
from modelmerger.values.sections import Section
from modelmerger.values.settings import BASE, Settings
from modelmerger.values.weights import shown_weight, varying_fields

_OWN = rf"models\[\d+\]\.path|{BASE}"
"""The pattern of the key of a model in memory that is of the merge itself, and of none within it."""


@frozen(eq=False, repr=False)
class Run:
    """What all merges of a config have in common."""

    registry: Registry
    """The installed plugins."""
    always_on: Sequence[Plugin]
    """Those that are always on."""
    sections: Sequence[Section]
    """What they bring."""

    @classmethod
    def of(cls, registry: Registry) -> "Run":
        """Imports the plugins that are always on. Raises `ConfigError`, `PluginError`."""
        always_on = list(map(load, registry.always_on()))
        return cls(registry, always_on, sections_of(always_on))


@frozen(eq=False, repr=False)
class Merge:
    """A merge as a config gives it, with texts for models in memory and for models that are merges."""

    given: Mapping[str, Any]
    """The config."""
    strategy: Plugin | None
    """None where the config names none that there is."""
    models: Sequence[Entry]
    """Empty where anything is wrong with one."""
    sections: Mapping[str, Any]
    """By key; None for one that is not given, or wrong."""

    @property
    def chosen(self) -> list[Plugin]:
        """The strategy, if there is one."""
        return [self.strategy] if self.strategy is not None else []

    @property
    def has_settings(self) -> bool:
        """Whether settings can be made of it, though options and sections of plugins may be wrong."""
        texts = (self.given.get(key) for key in (BASE, "output_path"))
        sound = isinstance(self.given.get("options"), Mapping | None) and all(isinstance(t, str | None) for t in texts)
        return sound and self.strategy is not None and bool(self.models)


def read_merge(given: Mapping[str, Any], run: Run, problems: list[Problem]) -> Merge:
    """All of a merge but its options. What is wrong, `problems` gets."""
    problems += [*_missing_strategy(given, run.registry), *_wrong_kinds(given)]
    of_strategy: list[Problem] = []
    strategy = _strategy(given.get("strategy"), run.registry, of_strategy)
    models = read_models(
        given.get("models"), strategy, run.always_on, _unchosen(run, strategy, "ModelOptions"), problems
    )
    problems += of_strategy
    return Merge(given, strategy, models, read_sections(given, run.sections, problems))


def read_no_merge(given: Mapping[str, Any], run: Run, problems: list[Problem]) -> tuple[Merge, dict[str, Any]]:
    """What a config says that names no strategy and no models, and its options by the key of their owner."""
    problems += _wrong_kinds(given)
    merge = Merge(given, None, (), read_sections(given, run.sections, problems))
    owners: list[Owner] = [core_owner(CoreOptions), *owners_of(run.always_on)]
    others = UnchosenPlugins(run.registry, "strategy", ["none"], "Options")
    options = given.get("options")
    plain = options if isinstance(options, Mapping) else {}
    return merge, structure_by_owner(plain, owners, "options", others, problems)


def read_options(
    merge: Merge, given: Any, run: Run, owners: Iterable[Plugin], problems: list[Problem]
) -> dict[str, Any]:
    """The options of the core, of the strategy and of other plugins that own some, by the key of each."""
    everybody: list[Owner] = [core_owner(CoreOptions), *owners_of([*merge.chosen, *owners])]
    others = _unchosen(run, merge.strategy, "Options")
    return structure_by_owner(given if isinstance(given, Mapping) else {}, everybody, "options", others, problems)


def unmet(merge: Merge, strategy: Strategy, options: Any, sections: Sequence[Section]) -> list[Problem]:
    """What the strategy says against the models and their weights, and against a base that is missing."""
    return [
        *_strategy_problems(strategy, merge.given.get("models"), merge.models, options),
        *_base_problems(strategy, merge.given, sections),
    ]


def settings_of(
    merge: Merge,
    given: Mapping[str, Any],
    shared: Mapping[str, Any],
    run: Run,
    live: Mapping[str, Any],
    nameless: Container[str],
    where: str = "",
) -> Settings:
    """The settings of a merge in which nothing is wrong, without merges within it.

    given: its config with the merges within it. shared: the options by the key of their owner. live: the models in
    memory of the whole config, by their whole keys. nameless: the keys of models that have no path. where: the key of
    the merge.
    """
    within = f"{where}." if where else ""
    own = {key.removeprefix(within): source for key, source in live.items() if key.startswith(within)}
    return Settings(
        strategy=merge.given.get("strategy", ""),
        models=tuple(with_names([entry.model for entry in merge.models], nameless)),
        model_options=tuple(entry.of_strategy for entry in merge.models),
        plugin_model_options=tuple(entry.of_plugins for entry in merge.models),
        base_model=merge.given.get(BASE),
        output_path=merge.given.get("output_path"),
        options=shared.get("") or CoreOptions(),
        strategy_options=next((shared.get(plugin.key) for plugin in merge.chosen), None),
        plugin_options={p.provider.name: shared[p.key] for p in run.always_on if shared.get(p.key) is not None},
        sections=merge.sections,
        validation=None,
        given={key: deepcopy(given[key]) for key in as_written(merge.sections) if given.get(key) not in (None, {})},
        live={key: source for key, source in own.items() if re.fullmatch(_OWN, key)},
        where=where,
        composes=any("compose_model" in plugin.hooks for plugin in merge.chosen),
    )


def _unchosen(run: Run, strategy: Plugin | None, attribute: str) -> UnchosenPlugins:
    return UnchosenPlugins(run.registry, "strategy", [strategy.provider.name] if strategy else [], attribute)


def _strategy(given: Any, registry: Registry, problems: list[Problem]) -> Plugin | None:
    """The strategy's plugin; None where there is none of that name, which `problems` gets."""
    if not isinstance(given, str):
        return None
    try:
        return load(registry.find("strategy", given))
    except ConfigError as error:
        problems += error.problems
        return None


def _missing_strategy(given: Mapping[str, Any], registry: Registry) -> Iterable[Problem]:
    strategy = given.get("strategy")
    if strategy is None:
        names = ", ".join(registry.names("strategy"))
        yield Problem(f"the key 'strategy' is missing. Installed are {names}", "config")
    elif not isinstance(strategy, str):
        yield Problem(f"must be the name of a strategy, got {strategy!r}", "strategy")


def _wrong_kinds(given: Mapping[str, Any]) -> list[Problem]:
    problems = []
    for key in ("base_model", "output_path"):
        path = given.get(key)
        if path is not None and not isinstance(path, str):
            problems.append(Problem(f"must be a path, as a text, got {path!r}", key))
        elif path == "":
            problems.append(Problem("must not be empty. Give a path, or leave it out", key))
    if not isinstance(given.get("options", {}), Mapping | None):
        problems.append(Problem(f"must be a mapping, got {given['options']!r}", "options"))
    return problems


def _base_problems(strategy: Strategy, given: Mapping[str, Any], sections: Sequence[Section]) -> list[Problem]:
    """A problem if the strategy needs a base that neither the config nor the models, not open yet, can give."""
    may_come = any(section.brings_base and given.get(section.name) for section in sections)
    if given.get("base_model") is None and not may_come and strategy.traits.wants_base:
        return [missing_base(strategy.name, sections)]
    return []


def _strategy_problems(strategy: Strategy, given: Any, models: Sequence[Entry], options: Any) -> list[Problem]:
    """Problems with the number of models, and with their weights. models: empty where one of them is wrong."""
    problems = _count_problems(strategy, len(given)) if given and is_list(given) else []
    if not strategy.traits.weights:
        problems += [
            Problem(
                f"{strategy.name} does not weigh models, got {shown_weight(model.weight)}. Leave it out",
                f"models[{i}].weight",
            )
            for i, model in enumerate(entry.model for entry in models)
            if model.weight != 1
        ]
    weights = [entry.model.weight for entry in models if isinstance(entry.model.weight, float)]
    sound = options is not None or strategy.plugin.options is None
    # other weights than numbers mean something only to tensors: the plan checks them
    told = [entry.of_strategy for entry in models]
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
