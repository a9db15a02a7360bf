"""Calls of hooks: who is asked, what of their errors passes, and who is to blame."""

import sys
from collections.abc import Callable, Container, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeVar

import pluggy
from attrs import evolve, field, frozen

from modelmerger.hooks.registry import Provider
from modelmerger.values.errors import MergeError, NumericError, PluginError, Problem
from modelmerger.values.text import shown

T = TypeVar("T")
_HANDED: dict[str, Any] = {"options": None}
"""Plugins are bound to their own options; what is said here is for a strategy without any."""


@frozen(eq=False, slots=False)
class Calls:
    """The plugins of one run. Whatever one raises becomes a `PluginError` that names it and its distribution; our own errors pass."""

    manager: pluggy.PluginManager = field(repr=False)
    providers: Mapping[str, Provider]
    """By the name under which a plugin is registered."""

    @cached_property
    def _voices(self) -> dict[str, dict[str, Callable[..., list[Any]]]]:
        """Hook → plugin → what calls that one's function alone, in the order in which they are asked."""
        hooks = [self.manager.hook.__dict__[name] for name in vars(self.manager.hook)]
        names = list(self.providers)
        return {
            caller.name: {
                implementation.plugin_name: self.manager.subset_hook_caller(
                    caller.name,
                    [self.manager.get_plugin(name) for name in names if name != implementation.plugin_name],
                )
                for implementation in reversed(caller.get_hookimpls())
            }
            for caller in hooks
        }

    def has(self, hook: str) -> bool:
        """Whether any plugin answers a hook."""
        return bool(self._voices[hook])

    def who_answer(self, hook: str) -> list[str]:
        """The plugins that answer a hook, in the order in which they are asked."""
        return list(self._voices[hook])

    def first(self, hook: str, tensor: str = "", **arguments: Any) -> Any:
        """The first answer that is not None."""
        arguments = _HANDED | arguments
        return self.guarded(hook, lambda: getattr(self.manager.hook, hook)(**arguments), tensor)

    def each(
        self, hook: str, tensor: str = "", among: Container[str] | None = None, **arguments: Any
    ) -> list[tuple[str, Any]]:
        """Every voice's answer with the name of its plugin; streams are read to their end inside the guard."""

        def collect() -> list[tuple[str, Any]]:
            answers = []
            for plugin, call in self._voices[hook].items():
                if among is None or plugin in among:
                    (answer,) = call(**_HANDED | arguments) or (None,)
                    answers.append((plugin, list(answer) if isinstance(answer, Iterator) else answer))
            return answers

        return self.guarded(hook, collect, tensor)

    def one(self, hook: str, plugin: str, **arguments: Any) -> Any:
        """The answer of one plugin that answers the hook; None where it answers nothing."""
        found = self.guarded(hook, lambda: self._voices[hook][plugin](**_HANDED | arguments))
        return found[0] if found else None

    def guarded(self, hook: str, call: Callable[[], T], tensor: str = "") -> T:
        """What a call gives. What a plugin raises that is no error of ours becomes one that names the plugin."""
        try:
            return call()
        except NumericError as error:
            raise NumericError(*(p if p.tensor else evolve(p, tensor=tensor) for p in error.problems)) from error
        except (MergeError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):  # of a device: the engine knows what to do
                raise
            message = f"{self._culprit(hook, error)} raised {type(error).__name__} in {hook}: {error}"
            raise PluginError(Problem(message, tensor=tensor)) from error

    def wrong_answer(self, hook: str, answer: Any, due: str, plugin: str = "", tensor: str = "") -> PluginError:
        """The error for an answer that is not what the hook is due."""
        who = str(self.providers[plugin]) if plugin else self.suspects(hook)
        return PluginError(Problem(f"{who}: {hook} gave {shown(answer)} instead of {due}.", tensor=tensor))

    def suspects(self, hook: str) -> str:
        """Who may have answered a hook: plugins of others, or else the built-in ones."""
        providers = [self.providers[name] for name in reversed(self.who_answer(hook))]
        return " or ".join(str(p) for p in [p for p in providers if not p.built_in] or providers)

    def _culprit(self, hook: str, error: BaseException) -> str:
        """The plugin whose module stands in the traceback."""
        modules = {self.providers[name].module: name for name in self.who_answer(hook)}
        trace, culprit = error.__traceback__, None
        while trace is not None:
            culprit = modules.get(trace.tb_frame.f_globals.get("__name__", ""), culprit)
            trace = trace.tb_next
        return str(self.providers[culprit]) if culprit else self.suspects(hook)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of a device, not the machine's, is used up."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
