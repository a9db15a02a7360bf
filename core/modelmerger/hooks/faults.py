"""Whose fault it is that a plugin raises: its own, or, where it is a built-in one, that of what it was given.

What an input can make a built-in plugin raise is endless, and each of it that is foreseen has a sentence of its own.
This is for the others: a plugin of another distribution is named, and a built-in one names what it could not take.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from modelmerger.hooks.providers import Provider, is_ours
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import ConfigError, InputError, MergeError, PluginError, Problem
from modelmerger.values.text import said_by, shown

_OF_CONFIGS = ("read_config", "explain_config", "expand_model", "check_config")
"""Hooks that are handed a config alone."""
_OF_NOTHING = ("add_commands", "name_companions", "provide_texts", "run_slices", "wants_slices", "wants_validation")
"""Hooks that are handed nothing that was read."""
_ADVICE = "If that is sound, it is a bug in modelmerger: report it"


def fault(
    providers: Sequence[Provider], hook: str, error: BaseException, given: Mapping[str, Any], tensor: str
) -> MergeError:
    """The error for what a plugin raised.

    providers: the plugin, or those that it may be. given: the arguments of the hook. tensor: the one in question;
    empty where there is none.
    """
    message = f"{named(providers)} raised {type(error).__name__} in {hook}: {said_by(error)}"
    if not are_built_in(providers):
        message = with_way_out(f"{message}{_place(providers, error)}", providers)
        return PluginError(Problem(message, tensor=tensor))
    if hook in _OF_NOTHING:
        return MergeError(
            Problem(f"a bug in modelmerger: {message}. Run it with --debug and report it.", tensor=tensor)
        )
    kind = ConfigError if hook in _OF_CONFIGS else InputError
    return kind(Problem(f"cannot be handled: {message}. {_ADVICE}.", _where(given), tensor))


def _place(providers: Sequence[Provider], error: BaseException) -> str:
    """Where the code of the plugins was, as far as it ran: ` (weights.py, line 12)`."""
    found = ""
    for name, trace in _modules(error):
        if any(_is_of(name, provider) or name.startswith(f"{provider.module}.") for provider in providers):
            found = f" ({shown(trace.tb_frame.f_code.co_filename, 80)}, line {trace.tb_lineno})"
    return found


def named(providers: Sequence[Provider]) -> str:
    """The plugins that are to blame where it may be any of these: those of others, or else the built-in ones."""
    others = [provider for provider in providers if not provider.built_in]
    return " or ".join(map(str, others or providers))


def with_way_out(message: str, providers: Sequence[Provider]) -> str:
    """A sentence about plugins, and how to do without the one of another distribution if there is one alone."""
    ways = {provider.way_out for provider in providers if not provider.built_in}
    way = ways.pop() if len(ways) == 1 else ""
    return f"{message.rstrip('.')}.{way}" if way else message


def are_built_in(providers: Sequence[Provider]) -> bool:
    """Whether none of the plugins is of another distribution."""
    return all(provider.built_in for provider in providers)


def culprits(error: BaseException, among: Sequence[Provider], all_providers: Sequence[Provider]) -> Sequence[Provider]:
    """The plugin whose module is in the traceback: one of another distribution if any is, for what it handed over may
    be what a built-in one could not take. Else all of those that may have been called.
    """
    found = [provider for module, _ in _modules(error) for provider in all_providers if _is_of(module, provider)]
    others = [provider for provider in found if not provider.built_in]
    asked = [provider for provider in found if provider in among]
    return (others or asked)[-1:] or among


def _modules(error: BaseException) -> Iterator[tuple[str, TracebackType]]:
    """The names of those whose code ran, the innermost last, and where."""
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_globals.get("__name__", ""), trace
        trace = trace.tb_next


def _is_of(module: str, provider: Provider) -> bool:
    return module == provider.module or (provider.built_in and module.startswith(f"{provider.module}."))


def reading_fault(checkpoint: Checkpoint, error: BaseException, tensor: str = "") -> MergeError:
    """The error for a checkpoint that fails as it is read: a plugin's fault, or of a built-in one the model's."""
    kind = type(checkpoint)
    message = f"{kind.__module__}.{kind.__qualname__} raised {type(error).__name__} as '{checkpoint.name}' was read"
    problem = Problem(f"{message}: {said_by(error)}", checkpoint.place, tensor)
    return InputError(problem) if is_ours(kind) else PluginError(problem)


def _where(given: Mapping[str, Any]) -> str:
    """Where the input lies that a hook was given; of several, their names."""
    checkpoints = [one for one in given.get("checkpoints") or () if isinstance(one, Checkpoint)]
    if "directory" in given:
        return str(given["directory"])
    if "reference" in given:
        return str(given["reference"].path)
    if "subject" in given:
        return str(getattr(given["subject"], "place", given["subject"].name))
    return checkpoints[0].place if len(checkpoints) == 1 else ", ".join(one.name for one in checkpoints)
