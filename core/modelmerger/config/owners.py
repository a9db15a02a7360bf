"""Who owns an option: each key of the config goes to whoever declares it, and is checked against its class."""

import ast
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from modelmerger.config.sections import CORE_KEYS
from modelmerger.config.strict_attrs import structure, unknown_key
from modelmerger.hooks.plugins import Plugin, option_names
from modelmerger.hooks.providers import BUILT_IN, Kind
from modelmerger.hooks.registry import Registry
from modelmerger.hooks.sources.found import imported_names, source_of, spec_of
from modelmerger.values.errors import ConfigError, PluginError, Problem
from modelmerger.values.settings import BASE
from modelmerger.values.text import suggestion


@frozen(eq=False, repr=False)
class Owner:
    """The core or a plugin, as the one that declares some keys of a mapping in the config."""

    key: str
    """The plugin's key within the run; empty for the core."""
    source: str
    """Its name for messages."""
    options: type
    """The attrs class whose fields the keys are."""


@frozen(eq=False, repr=False)
class UnchosenPlugins:
    """Plugins that the config does not name. One of them may own a key that no owner of this run declares."""

    registry: Registry
    """What is installed."""
    kind: Kind
    """The kind of the plugins."""
    chosen: Sequence[str]
    """The plugins of this kind that the config names."""
    attribute: str
    """The attribute of their modules that declares such keys."""

    def problem(self, key: Any, where: str, known: Iterable[str]) -> Problem | None:
        """What is wrong with a key that is not `known`; None where it may belong to a plugin that is not known yet."""
        near = suggestion(str(key), known)
        if (owner := ", ".join(self._owners(key))) and self.chosen:
            message = f"'{key}' belongs to {owner}, and the {self.kind} is {', '.join(self.chosen)}. Leave it out"
            return Problem(message, where)
        if off := self._switched_off(key):
            return Problem(f"'{key}' belongs to {off}. Leave it out", where)
        if key in CORE_KEYS:
            return Problem(f"unknown key {key!r} in here. It stands by itself, outside of {where}", where)
        return Problem(f"unknown key {key!r}{near}", where) if self.chosen or (near and not owner) else None

    def _owners(self, key: Any) -> Iterator[str]:
        """The plugins that declare the key. None of them is imported to find out."""
        for provider in self.registry.providers:
            other = provider.kind == self.kind and provider.name not in self.chosen
            if other and key in declared_fields(provider.module, self.attribute):
                yield provider.name if provider.built_in else f"{provider.name} from {provider.source}"

    def _switched_off(self, key: Any) -> str | None:
        """The plugin that would declare the key if it were not switched off, and why it is."""
        kinds = {self.kind, *(["plugin"] if (self.kind, self.attribute) == ("strategy", "Options") else [])}
        for provider, reason in self.registry.switched_off:
            if provider.kind in kinds and key in declared_fields(provider.module, self.attribute):
                return f"{provider}, which is switched off: {reason}"
        return None


def core_owner(options: type) -> Owner:
    """The core as an owner."""
    return Owner("", BUILT_IN, options)


def owners_of(plugins: Iterable[Plugin]) -> list[Owner]:
    """The plugins that declare options, as owners."""
    return [Owner(p.key, str(p.provider), p.options) for p in plugins if p.options is not None]


def structure_by_owner(
    given: Mapping[Any, Any], owners: Sequence[Owner], where: str, others: UnchosenPlugins, problems: list[Problem]
) -> dict[str, Any]:
    """An instance of each owner's class, by the owner's key; None where something is wrong, which `problems` gets.

    where: the key of the mapping, for messages. Raises `PluginError` for a key that two owners declare.
    """
    owner_of = _owner_by_key(owners)
    unknown = [others.problem(key, where, owner_of) for key in given if key not in owner_of]
    problems += filter(None, unknown)
    values: dict[str, Any] = {}
    for owner in owners:
        mine = {key: value for key, value in given.items() if owner_of.get(key) == owner}
        try:
            values[owner.key] = structure(mine, owner.options, where)
        except ConfigError as error:
            problems += error.problems
            values[owner.key] = None
    return values


def with_places(problems: Iterable[Problem], places: Mapping[str, Collection[str]]) -> list[Problem]:
    """The problems; those of an unknown key that stands in the wrong mapping say which the right one is.

    places: the keys that mappings of the config have, by what is said of where to write one.
    """
    told = []
    for problem in problems:
        key = unknown_key(problem)
        found = [] if problem.where.endswith(BASE) else places.items()  # a base model has one key alone
        place = next((place for place, keys in found if key in keys), None)
        told.append(evolve(problem, message=f"unknown key {key!r} in here. Write it {place}") if place else problem)
    return told


def _owner_by_key(owners: Sequence[Owner]) -> dict[str, Owner]:
    owned: dict[str, Owner] = {}
    for owner in owners:
        for name in option_names(owner.options):
            if name in owned:
                both = f"{owned[name].source} and by {owner.source}"
                # nobody can switch the core off, and it comes first
                cure = "switch one of them off" if owned[name].key else f"rename it in {owner.source}"
                raise PluginError(f"option '{name}' is declared twice: by {both}; {cure}.")
            owned[name] = owner
    return owned


def declared_fields(module: str, cls: str) -> frozenset[str]:
    """The fields of a class in a module, with those of its bases, from their source: nothing is imported."""
    try:
        return frozenset(_fields(module, cls, set()))
    except (SyntaxError, ValueError):
        return frozenset()


def _fields(module: str, cls: str, seen: set[tuple[str, str]]) -> Iterator[str]:
    """The class may also be one that the module imports by name, or (`package.Class`) with the module that it is in."""
    if (module, cls) in seen:
        return
    seen.add((module, cls))
    tree = ast.parse(source_of(module))
    spec = spec_of(module)
    package = spec is not None and spec.submodule_search_locations is not None
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == cls:
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    yield line.target.id
            for base in map(ast.unparse, node.bases):
                yield from _fields(module, base, seen)
    home, _, name = cls.rpartition(".")
    for source, taken in imported_names(tree, module, package):
        if taken and taken == (home or name):
            yield from _fields(f"{source}.{taken}" if home else source, name, seen)
