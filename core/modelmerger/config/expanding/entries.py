"""Replaces entries of `models` by what a plugin says that they stand for, in a config and in all merges within it.

So all that follows, names, keys and the config in the manifest, has a model in each entry.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve, field, frozen

from modelmerger.config.expanding.shares import shared_weight
from modelmerger.config.given_models import is_list
from modelmerger.config.models_in_memory import DEEPEST, MERGE, MERGES
from modelmerger.config.one_merge import Run
from modelmerger.config.strict_attrs import structure
from modelmerger.hooks.assembly import assemble
from modelmerger.hooks.plugins import Plugin, load, option_names
from modelmerger.hooks.strategy import Strategy
from modelmerger.values.errors import ConfigError, MergeError, PluginError, Problem
from modelmerger.values.model_reference import ModelReference
from modelmerger.values.settings import BASE, key_of_model

_ENTRY = r"models\[\d+\](?=[.\[]|\Z)"


@frozen(eq=False, repr=False)
class Expanded:
    """A config whose entries of `models` are one model each."""

    given: Mapping[str, Any]
    """The config."""
    problems: Sequence[Problem] = ()
    """What is wrong with entries that a plugin refused, which stay as they are."""
    places: Mapping[str, str] = field(factory=dict)
    """The key of each entry that has another one in the user's config, there."""

    def as_given(self, problems: Sequence[Problem]) -> Sequence[Problem]:
        """The problems at the places that the user's config has for them; one that all members have is one."""
        return list(dict.fromkeys(map(self._placed, problems))) if self.places else problems

    def _placed(self, problem: Problem) -> Problem:
        ends = [found.end() for found in re.finditer(_ENTRY, problem.where)]
        for end in reversed(ends):
            if (place := self.places.get(problem.where[:end])) is not None:
                return evolve(problem, where=place + problem.where[end:])
        return problem


def expand(given: Mapping[str, Any], run: Run) -> Expanded:
    """Asks plugins about each entry that has a path, where one of them expands any.

    Each member gets what the entry has, except for the path, the keys of the plugins that are always on, and its share
    of the weight. A name becomes that of a folder: `soup/checkpoint-500`. Paths that name a merge are no paths.
    """
    plugins = [plugin for plugin in run.always_on if "expand_model" in plugin.hooks]
    if not plugins:
        return Expanded(given)
    return _Expanding(run, plugins).expand(given)


class _Expanding:
    def __init__(self, run: Run, asked: Sequence[Plugin]) -> None:
        self._run, self._hooks = run, assemble(asked).models
        self._owners = [plugin for plugin in run.always_on if plugin.model_options is not None]
        self._of_plugins = {name for plugin in self._owners for name in option_names(plugin.model_options or object)}
        self._problems: list[Problem] = []
        self._places: dict[str, str] = {}
        self._merges: Mapping[str, Any] = {}

    def expand(self, given: Mapping[str, Any]) -> Expanded:
        named = given.get(MERGES)
        self._merges = named if isinstance(named, Mapping) else {}
        plain = self._merge(given, "", "", 0)
        return Expanded(plain, self._problems, self._places)

    def _merge(self, given: Any, ours: str, theirs: str, depth: int) -> Any:
        """ours, theirs: the key of the merge with a dot behind it, as it is and as the user has it."""
        if not isinstance(given, Mapping) or depth > DEEPEST:
            return given
        plain = dict(given)
        models: Any = given.get("models")
        if is_list(models):
            plain["models"] = self._models(given, models, ours, theirs, depth)
        if isinstance(base := given.get(BASE), Mapping) and MERGE in base:
            inner = f"{BASE}.{MERGE}."
            plain[BASE] = {**base, MERGE: self._merge(base[MERGE], ours + inner, theirs + inner, depth + 1)}
        if not depth and self._merges:
            keyed = ((name, f"{MERGES}.{name}.", merge) for name, merge in self._merges.items())
            plain[MERGES] = {name: self._merge(merge, key, key, 1) for name, key, merge in keyed}
        return plain

    def _models(self, given: Mapping[str, Any], models: Sequence[Any], ours: str, theirs: str, depth: int) -> list[Any]:
        found: list[Any] = []
        for i, entry in enumerate(models):
            theirs_here = f"{theirs}models[{i}]"
            for member in self._members(given, entry, i, f"{ours}models[{len(found)}]"):
                ours_here = f"{ours}models[{len(found)}]"
                if ours_here != theirs_here:
                    self._places[ours_here] = theirs_here
                if isinstance(member, Mapping) and MERGE in member:
                    inner = self._merge(member[MERGE], f"{ours_here}.{MERGE}.", f"{theirs_here}.{MERGE}.", depth + 1)
                    found.append({**member, MERGE: inner})
                else:
                    found.append(member)
        return found

    def _members(self, given: Mapping[str, Any], entry: Any, index: int, where: str) -> Iterator[Any]:
        """where: the key of the first of them."""
        path = entry.get("path") if isinstance(entry, Mapping) else None
        shares = None
        if isinstance(path, str) and path and path not in self._merges:
            shares = self._asked(ModelReference(path, "", key_of_model(index)), entry, where)
        if shares is None:
            yield entry
            return
        common = os.path.commonpath([os.path.dirname(os.path.abspath(member)) for member in shares])
        kept = {key: value for key, value in entry.items() if key not in self._of_plugins}
        unweighed = "weight" not in entry and len(set(shares.values())) == 1 and not _weighs(given, self._run)
        for member, share in shares.items():
            told = {**kept, "path": member}
            if not unweighed:
                told["weight"] = shared_weight(entry.get("weight", 1.0), share)
            if isinstance(name := entry.get("name"), str) and name:
                told["name"] = f"{name}/{os.path.relpath(os.path.abspath(member), common)}"
            yield told

    def _asked(self, reference: ModelReference, entry: Mapping[str, Any], where: str) -> Mapping[str, float] | None:
        """The members; None where the entry is one model, or is refused here or later."""
        told: dict[str, Any] = {}
        for plugin in self._owners:
            mine = {key: entry[key] for key in option_names(plugin.model_options or object) if key in entry}
            try:
                told[plugin.key] = structure(mine, plugin.model_options or object, where)
            except ConfigError:  # said once the models are read
                return None
        try:
            return self._hooks.expand_model(reference, told)
        except PluginError:
            raise
        except MergeError as error:
            entry_key = reference.where.removesuffix(".path")
            self._problems += [evolve(p, where=where + p.where.removeprefix(entry_key)) for p in error.problems]
            return None


def _weighs(given: Mapping[str, Any], run: Run) -> bool:
    """Whether the strategy of a merge weighs models; so it does where there is no such strategy."""
    try:
        plugin = load(run.registry.find("strategy", str(given.get("strategy"))))
    except ConfigError:
        return True
    strategy: Strategy = assemble([plugin], {plugin.key: None}).strategy
    return strategy.traits.weights
