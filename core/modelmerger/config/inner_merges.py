"""Merges within a merge: found in its config, and each resolved once, as strictly as the outermost one."""

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve, frozen

from modelmerger.config.found_merges import Found, nameless, take_out
from modelmerger.config.models_in_memory import DEEPEST, MERGE, MERGES
from modelmerger.config.one_merge import Merge, Run, read_merge, read_options, settings_of, unmet
from modelmerger.config.places import inside_merge
from modelmerger.config.sections import INNER_KEYS
from modelmerger.config.strict_attrs import show_value, unknown_keys
from modelmerger.hooks.assembly import Hooks, assemble
from modelmerger.hooks.plugins import option_names
from modelmerger.values.errors import Problem
from modelmerger.values.options.core import INHERITED, OF_A_MERGE, CoreOptions
from modelmerger.values.settings import BASE, Settings
from modelmerger.values.text import shown

MOST = 1000
"""Merges in a config, one that a path names counted wherever it is named."""


@frozen(eq=False, repr=False)
class Resolved:
    """A merge within another one, resolved."""

    settings: Settings
    """Its own."""
    hooks: Hooks
    """Its plugins: its strategy, and those that are always on."""
    depth: int
    """How deep merges lie in it; 1 where there are none."""
    count: int
    """How many merges it is, with itself and those within it."""


class InnerMerges:
    """Resolves the merges of a config, those that paths name once."""

    def __init__(self, run: Run, names: Mapping[str, Any], live: Mapping[str, Any], *, strict: bool = False) -> None:
        """names: the merges that paths can name, as the config has them."""
        self._run, self._names, self._live, self._strict = run, names, live, strict
        self.notes: list[Problem] = []
        """Warnings."""
        self._shared: Mapping[str, Any] = {}
        self._problems: list[Problem] = []
        self._named: set[str] = set()
        self._known: dict[str, Resolved | None] = {}
        self._circles: set[frozenset[str]] = set()

    def resolve_all(
        self, found: Mapping[str, Found], shared: Mapping[str, Any], problems: list[Problem]
    ) -> dict[str, Resolved]:
        """The merges of the outermost merge, by the keys of its models; less where anything is wrong.

        shared: the options of the outermost merge, by the key of their owner. What is wrong, `problems` gets.
        """
        self._shared, self._problems = shared, problems
        inner = self._each(found, (), 1)
        if sum(one.count for one in inner.values()) > MOST:
            message = f"comes to more than {MOST:,} merges, each counted wherever it is used. Publish some of them"
            problems.append(Problem(message, "config"))
        for name, merge in self._names.items():
            self._resolve(Found(merge, f"{MERGES}.{name}", name), (), 1)
        for name in [name for name in self._names if name not in self._named]:
            message = "no path names this merge, so it is not made. Leave it out, or give it as the path of a model."
            self.notes.append(Problem(message, f"{MERGES}.{name}", severity="warning"))
        return inner

    def _each(self, found: Mapping[str, Found], above: tuple[str, ...], depth: int) -> dict[str, Resolved]:
        self._named |= {one.name for one in found.values()}
        resolved = {key: self._resolve(one, above, depth) for key, one in found.items()}
        return {key: one for key, one in resolved.items() if one is not None}

    def _resolve(self, found: Found, above: tuple[str, ...], depth: int) -> Resolved | None:
        """above: the names of the merges that this one lies in, from the outermost one on."""
        if found.name in above:
            self._report_circle((*above[above.index(found.name) :], found.name), found.where)
            return None
        if found.name not in self._known:
            resolved = self._read(found, (*above, *filter(None, [found.name])), depth)
            if not found.name:
                return resolved
            self._known[found.name] = resolved
        known = self._known[found.name]
        if known is not None and depth + known.depth - 1 > DEEPEST:
            self._problems.append(_too_deep(found.where))
            return None
        return known

    def _read(self, found: Found, above: tuple[str, ...], depth: int) -> Resolved | None:
        if depth > DEEPEST:
            self._problems.append(_too_deep(found.where))
            return None
        if not isinstance(found.given, Mapping):
            message = f"must be a mapping with a 'strategy' and 'models', got {show_value(found.given)}"
            if isinstance(found.given, str) and found.given in self._names:
                named = found.where.removesuffix(f".{MERGE}").endswith(BASE)
                message += f". Write {'base_model' if named else 'path'}: {found.given} to use that merge"
                self._named.add(found.given)
            self._problems.append(Problem(message, found.where))
            return None
        problems: list[Problem] = []
        resolved = self._of_mapping(found, found.given, above, depth, problems)
        self._problems += [inside_merge(found.where, problem) for problem in problems]
        return resolved if not problems else None

    def _of_mapping(
        self, found: Found, given: Mapping[str, Any], above: tuple[str, ...], depth: int, problems: list[Problem]
    ) -> Resolved | None:
        run = self._run
        problems += unknown_keys(given, (*INNER_KEYS, *(section.name for section in run.sections)), "config")
        plain, within = take_out(given, self._names, found.where, problems)
        merge = read_merge(plain, run, problems)
        options, own = self._options(merge, plain.get("options"), problems)
        inner = self._each(within, above, depth + 1)
        if merge.strategy is None or problems:
            return None
        told = {key: value for key, value in self._shared.items() if value is not None} | {merge.strategy.key: own}
        hooks = assemble([merge.strategy, *run.always_on], told)
        problems += unmet(merge, hooks.strategy, own, run.sections)
        if problems or len(inner) < len(within):
            return None
        own_names = nameless(within, self._live_in(found.where))
        settings = settings_of(merge, given, told | {"": options}, run, self._live, own_names, found.where)
        settings = evolve(
            settings,
            merges={key: one.settings for key, one in inner.items()},
            strict=self._strict,
            acts_on_base=hooks.strategy.traits.wants_base,
        )
        hooks = evolve(hooks, merges={key: one.hooks for key, one in inner.items()})
        said = hooks.models.check_config(settings)
        problems += [problem for problem in said if problem.severity == "error"]
        self.notes += [inside_merge(found.where, note) for note in said if note.severity != "error"]
        deepest = max((one.depth for one in inner.values()), default=0)
        return Resolved(settings, hooks, 1 + deepest, 1 + sum(one.count for one in inner.values()))

    def _options(self, merge: Merge, given: Any, problems: list[Problem]) -> tuple[CoreOptions, Any]:
        """The options of the core, most of them the outermost merge's; and the strategy's."""
        told = dict(given) if isinstance(given, Mapping) else {}
        refused = of_whole_run(told, self._run)
        problems += refused.values()
        told = {key: value for key, value in told.items() if key not in refused}
        read = read_options(merge, told, self._run, (), problems)
        core, outer = read[""] or CoreOptions(), self._shared.get("") or CoreOptions()
        own = {name: getattr(core, name) for name in OF_A_MERGE if name in told or name not in INHERITED}
        return evolve(outer, **own), read.get(merge.strategy.key) if merge.strategy is not None else None

    def _live_in(self, where: str) -> set[str]:
        """The keys of models in memory within a merge, as that merge has them."""
        return {key.removeprefix(f"{where}.") for key in self._live if key.startswith(f"{where}.")}

    def _report_circle(self, names: tuple[str, ...], where: str) -> None:
        if frozenset(names) not in self._circles:
            self._circles.add(frozenset(names))
            message = f"is made of itself: {' → '.join(names)}. Give one of them another model"
            self._problems.append(Problem(message, where))


def of_whole_run(options: Iterable[Any], run: Run) -> dict[Any, Problem]:
    """Of the options that a merge within another one is given, those that it cannot have: what is wrong, by option."""
    owned = [plugin.options for plugin in run.always_on if plugin.options is not None]
    whole = {name for cls in (CoreOptions, *owned) for name in option_names(cls)} - set(OF_A_MERGE)
    message = "'{}' is of the whole run. Give it in the options of the outermost merge"
    return {key: Problem(message.format(shown(key)), "options") for key in options if key in whole}


def _too_deep(where: str) -> Problem:
    return Problem(f"lies more than {DEEPEST} merges deep. Publish one of them, and give its directory", where)
