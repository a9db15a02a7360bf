"""Plugins that were handed over as files and that the config does not name, so that they do nothing."""

from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType

from modelmerger.hooks.providers import Kind, Provider
from modelmerger.hooks.registry import Registry
from modelmerger.values.errors import Problem
from modelmerger.values.text import shown

_SET: Mapping[Kind, Callable[[str], str]] = MappingProxyType(
    {
        "strategy": "strategy={}".format,
        "validator": "validation.metrics=[{}]".format,
        "executor": "options.executor={}".format,
    }
)
"""What names a plugin of a kind that is not always on."""


def unused(registry: Registry, used: Collection[Provider], strategy: str | None = None) -> Iterator[Problem]:
    """A warning about each plugin of the process that has to be named and is not.

    used: the plugins of the run. strategy: of the merge; None where there is no merge.
    """
    for given in registry.providers:
        if not given.digest or given in used or given.kind not in _SET or "reader" in given.roles:
            continue
        chosen = [f"'{provider.name}'" for provider in used if provider.kind == given.kind]
        if given.kind == "strategy":
            reason = f"the strategy is '{shown(strategy)}'" if strategy is not None else "nothing is merged"
        elif chosen:
            reason = f"the config names the {given.kind}{'s' if len(chosen) > 1 else ''} {', '.join(sorted(chosen))}"
        else:
            reason = f"the config names no {given.kind}"
        remedy = f"Give --set {_SET[given.kind](given.name)}, or leave --plugin out"
        yield Problem(f"is not used: {reason}. {remedy}.", given.version, severity="warning")
