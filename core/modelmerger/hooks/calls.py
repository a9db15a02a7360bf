"""Calls of hooks: which plugins are asked, which of their errors pass, and which plugin is to blame for others."""

import sys
from collections.abc import Callable, Container, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

import pluggy
from attrs import evolve, frozen

from modelmerger.hooks.faults import are_built_in, culprits, fault, named, with_way_out
from modelmerger.hooks.interruptions import is_interruption
from modelmerger.hooks.plugins import WITHIN
from modelmerger.hooks.providers import Provider
from modelmerger.values.errors import MergeError, NumericError, PluginError, Problem
from modelmerger.values.text import shown

T = TypeVar("T")
NOTHING: Mapping[str, Any] = MappingProxyType({})
_HANDED: dict[str, Any] = {"options": None}
"""Plugins are bound to their own options, so this is only for a strategy that has none."""


@frozen(eq=False, repr=False, slots=False)
class Calls:
    """Calls the plugins of one run. What a plugin raises becomes an error that says whose fault it is."""

    manager: pluggy.PluginManager
    """Where the plugins are registered, each by its key."""
    providers: Mapping[str, Provider]
    """The plugins, by their keys."""

    @cached_property
    def _callers(self) -> dict[str, dict[str, Callable[..., list[Any]]]]:
        """Hook → plugin → what calls that plugin alone, in the order in which plugins are asked."""
        found: dict[str, dict[str, Callable[..., list[Any]]]] = {}
        for hook, caller in vars(self.manager.hook).items():
            answering = {one.plugin_name: one.plugin for one in reversed(caller.get_hookimpls())}
            found[hook] = {
                name: self.manager.subset_hook_caller(
                    hook, [other for other in answering.values() if other is not plugin]
                )
                for name, plugin in answering.items()
            }
        return found

    def plugins_with(self, hook: str) -> list[str]:
        """The keys of the plugins that have a hook, in the order in which they are asked."""
        return list(self._callers[hook])

    def in_turn(self, hook: str, within: str = "") -> list[str]:
        """The keys of the plugins that get each other's answers. A validator is not one: it changes no merge.

        within: where the config gives the merge, if that is a merge within another one. Then its strategy alone is
        asked, and plugins that say so (`within_merges`): the others act once, on the outermost merge.
        """
        kinds = [(name, self.providers[name].kind) for name in self.plugins_with(hook)]
        return [
            name
            for name, kind in kinds
            if kind == "strategy" or (kind != "validator" and (not within or self._acts_within(name, hook)))
        ]

    def _acts_within(self, plugin: str, hook: str) -> bool:
        return hook in getattr(self.manager.get_plugin(plugin), WITHIN, ())

    def ask_first(self, hook: str, tensor: str = "", **arguments: Any) -> Any:
        """The first answer that is not None. tensor: the one in question, for messages."""
        arguments = _HANDED | arguments
        return self.guard(hook, lambda: getattr(self.manager.hook, hook)(**arguments), tensor, arguments)

    def ask_each(
        self, hook: str, tensor: str = "", among: Container[str] | None = None, **arguments: Any
    ) -> list[tuple[str, Any]]:
        """Every plugin's answer, with the plugin's key; iterators are read to their end.

        among: the plugins that are asked; None: all.
        """

        def collect() -> list[tuple[str, Any]]:
            answers = []
            for plugin, call in self._callers[hook].items():
                if among is None or plugin in among:
                    (answer,) = call(**_HANDED | arguments) or (None,)
                    answers.append((plugin, list(answer) if isinstance(answer, Iterator) else answer))
            return answers

        return self.guard(hook, collect, tensor, arguments)

    def ask_one(self, hook: str, plugin: str, **arguments: Any) -> Any:
        """The answer of one plugin that has the hook."""
        found: Any = self.guard(hook, lambda: self._callers[hook][plugin](**_HANDED | arguments), given=arguments)
        if self._is_first(hook):
            return found  # which may be a list, if that is what the plugin gave
        return found[0] if found else None

    def _is_first(self, hook: str) -> bool:
        """Whether the first answer that is not None counts, so that pluggy gives that and no list of all."""
        spec = getattr(self.manager.hook, hook).spec
        return bool(spec and spec.opts["firstresult"])

    def guard(self, hook: str, call: Callable[[], T], tensor: str = "", given: Mapping[str, Any] = NOTHING) -> T:
        """The result of a call. Whatever it raises, except `MergeError`, becomes a `PluginError` about the plugin.

        For a built-in plugin it becomes an `InputError` about what it was handed. given: the arguments of the hook.
        """
        try:
            return call()
        except NumericError as error:
            raise NumericError(*(p if p.tensor else evolve(p, tensor=tensor) for p in error.problems)) from error
        except MergeError:
            raise
        except BaseException as error:  # SystemExit, and what cancels a coroutine, are raised by plugins too
            if is_interruption(error):
                raise
            found = culprits(error, self._all_with(hook), list(self.providers.values()))
            # the engine handles that of a device, and that of the machine is nobody's fault but a foreign plugin's
            if is_out_of_memory(error) or (isinstance(error, MemoryError) and are_built_in(found)):
                raise
            raise fault(found, hook, error, given, tensor) from error

    def wrong_answer(self, hook: str, answer: Any, due: str, plugin: str = "", tensor: str = "") -> PluginError:
        """The error for an answer that is not what the hook must give."""
        asked = [self.providers[plugin]] if plugin else self._all_with(hook)
        message = f"{named(asked)}: {hook} gave {shown(answer)} instead of {due}."
        return PluginError(Problem(with_way_out(message, asked), tensor=tensor))

    def suspects(self, hook: str) -> str:
        """The plugins that may have answered a hook: those of other distributions, or else the built-in ones."""
        return named(self._all_with(hook))

    def _all_with(self, hook: str) -> list[Provider]:
        return [self.providers[name] for name in reversed(self.plugins_with(hook))]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device ran out of memory (not the machine)."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
