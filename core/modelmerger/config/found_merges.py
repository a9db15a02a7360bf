"""Merges within a merge, as its config has them: found, and replaced there by a text, so that the rest is as in any."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from attrs import frozen

from modelmerger.config.models_in_memory import MERGE, MERGES
from modelmerger.config.strict_attrs import show_value, unknown_keys
from modelmerger.values.errors import Problem
from modelmerger.values.settings import BASE, key_of_model

NAME = r"[^\s/\\.~@:<>\[\]]+"
"""The pattern of a name of a merge: nothing that looks like a path or a Hub id."""


@frozen(eq=False, repr=False)
class Found:
    """A merge within another one, as its config has it."""

    given: Any
    """What stands there."""
    where: str
    """Its whole key: `models[0].merge`, `merges.soup`."""
    name: str = ""
    """What paths call it; empty for one that is written where it is used."""


def take_out(
    given: Mapping[str, Any], names: Mapping[str, Any], where: str, problems: list[Problem]
) -> tuple[dict[str, Any], dict[str, Found]]:
    """The config of a merge with a text in place of each model that is a merge; and these, by the keys of the models.

    names: the merges that paths can name. where: the key of the merge, empty for the outermost one. What is wrong,
    `problems` gets.
    """
    plain, found = dict(given), dict[str, Found]()
    within = f"{where}." if where else ""
    models = given.get("models")
    if isinstance(models, list | tuple):
        plain["models"] = list(models)
        for i, model in enumerate(models):
            if not isinstance(model, Mapping):
                continue
            if MERGE in model:
                key, rest = f"models[{i}]", {name: value for name, value in model.items() if name != MERGE}
                if "path" in rest:
                    problems.append(Problem("has a 'path' and a 'merge'. Give one of them", key))
                found[key_of_model(i)] = Found(model[MERGE], f"{within}{key}.{MERGE}")
                plain["models"][i] = {**rest, "path": _text(model[MERGE])}
            elif isinstance(path := model.get("path"), str) and path in names:
                found[key_of_model(i)] = Found(names[path], f"{MERGES}.{path}", path)
    base = given.get(BASE)
    if isinstance(base, Mapping) and MERGE in base:
        problems += unknown_keys(base, [MERGE], BASE)
        found[BASE] = Found(base[MERGE], f"{within}{BASE}.{MERGE}")
        plain[BASE] = _text(base[MERGE])
    elif isinstance(base, str) and base in names:
        found[BASE] = Found(names[base], f"{MERGES}.{base}", base)
    return plain, found


def nameless(found: Mapping[str, Found], live: Collection[str]) -> set[str]:
    """The keys of models that have no path to be named after: those in memory, and merges that have no name."""
    return {*live, *(key for key, one in found.items() if not one.name)}


def read_named(given: Any, problems: list[Problem]) -> dict[str, Any]:
    """The merges that paths can name, by their names, from that section of a config. What is wrong, `problems` gets."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        problems.append(Problem(f"must be a mapping from names to merges, got {show_value(given)}", MERGES))
        return {}
    sound = {name: merge for name, merge in given.items() if isinstance(name, str) and re.fullmatch(NAME, name)}
    for name in given:
        if name not in sound:
            message = f"{name!r} cannot be the name of a merge. Give one without spaces, dots, slashes and the like"
            problems.append(Problem(message, MERGES))
    return sound


def _text(given: Any) -> str:
    """The text in place of a merge, which is no valid path: `<merge by slerp>`."""
    strategy = given.get("strategy") if isinstance(given, Mapping) else None
    return f"<merge by {strategy}>" if isinstance(strategy, str) else "<merge>"
