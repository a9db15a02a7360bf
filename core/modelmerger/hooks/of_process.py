"""Plugins that are not installed: a file, a module or an object of this process, which acts as an installed one would.

No config names a file of code: whoever starts the process hands such plugins over.
"""

import os
import sys
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from attrs import evolve, frozen
from blake3 import blake3

from modelmerger.hooks.interruptions import is_interruption
from modelmerger.hooks.plugins import hook_names
from modelmerger.hooks.providers import OF_PROCESS, Kind, Provider
from modelmerger.hooks.sources.changed import has_changed
from modelmerger.hooks.sources.digests import content_digest
from modelmerger.hooks.specs import STRATEGY_HOOKS
from modelmerger.hooks.validators import HOOK as VALIDATES
from modelmerger.inputs.regular_files import read_small
from modelmerger.values.errors import ConfigError, InputError, PluginError
from modelmerger.values.text import shown

_MOST_BYTES = 1024 * 1024


@frozen(eq=False, repr=False)
class _Handed:
    """An entry point of a plugin that is imported already."""

    plugin: Any

    def load(self) -> Any:
        return self.plugin


def provider_of(plugin: Any, kind: Kind) -> Provider:
    """A module or an object as a plugin of this kind.

    It is named by the last part of the module's name, or by the object's class. Raises `PluginError` for a class, for
    one without a hook of that kind, and for one whose source cannot be read: nothing would tell whether it is still the
    same when an interrupted merge goes on.
    """
    if isinstance(plugin, type):
        raise PluginError(f"{kind} '{plugin.__name__}' is a class. Give an instance: {plugin.__name__}().")
    module = isinstance(plugin, ModuleType)
    target = plugin.__name__ if module else type(plugin).__module__
    name = target.rpartition(".")[2] if module else type(plugin).__name__
    hooks = frozenset(hook_names(f"{kind} '{name}'", plugin))
    if not (_merges(plugin, hooks) if kind == "strategy" else VALIDATES in hooks):
        raise PluginError(
            f"{kind} '{name}' has no hooks of a {kind}. Mark functions with @hookimpl, named as a hook is."
        )
    digest = content_digest(plugin)
    if not digest:
        raise PluginError(
            f"{kind} '{name}' cannot be digested, its source or what it holds. Put it into a module of its own."
        )
    if has_changed(plugin):
        raise PluginError(f"{kind} '{name}' was imported from a file that has changed since. Import it anew.")
    given_as = target if module else f"{target}.{name}"
    return Provider(kind, name, OF_PROCESS, given_as, target, _Handed(plugin), roles=frozenset({kind}), digest=digest)


def providers_of_file(path: Path) -> list[Provider]:
    """Imports a file, and says what it is: a strategy, a validator, an executor, a reader of configs, or always on.

    It is named by the file, without its ending. Raises `ConfigError` where there is no such file, `PluginError` for one
    that cannot be imported, or is no plugin.
    """
    try:
        content = read_small(Path(os.path.realpath(path)), _MOST_BYTES)
    except InputError as error:
        raise ConfigError(*(evolve(problem, where=str(path)) for problem in error.problems)) from error
    digest = blake3(content).hexdigest()
    module = _imported(path, content, f"{path.stem}_{digest[:12]}")
    hooks = frozenset(hook_names(shown(path), module))
    kinds = _kinds(module, hooks, shown(path))
    handed = _Handed(module)
    return [
        Provider(kind, path.stem, OF_PROCESS, str(path), module.__name__, handed, roles=frozenset(kinds), digest=digest)
        for kind in kinds
    ]


def _merges(plugin: Any, hooks: frozenset[str]) -> bool:
    """Whether it is a strategy. Other plugins may compose an output too, and have no `traits`."""
    return bool(hooks & STRATEGY_HOOKS) or ("compose_model" in hooks and hasattr(plugin, "traits"))


def _kinds(plugin: Any, hooks: frozenset[str], file: str) -> list[Kind]:
    if not hooks:
        raise PluginError(f"{file} has no hooks. Mark functions with @hookimpl, named as a hook is.")
    merges, validates = _merges(plugin, hooks), VALIDATES in hooks
    if merges and validates:
        raise PluginError(f"{file} has hooks of a strategy and of a validator. Make two files of it.")
    reads = "read_config" in hooks
    if reads and len(hooks) == 1:
        return ["reader"]
    rest: Kind = "executor" if "run_slices" in hooks else "plugin"
    main: Kind = "strategy" if merges else "validator" if validates else rest
    return [main, "reader"] if reads else [main]


def _imported(path: Path, content: bytes, name: str) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # where classes look up the module that they are in
    try:
        exec(compile(content, str(path), "exec"), vars(module))  # noqa: S102 (the user's own, and asked for)
    except BaseException as error:
        del sys.modules[name]
        if is_interruption(error):
            raise
        line = _line(error, str(path))
        reason = f"{error.msg if isinstance(error, SyntaxError) else error}{f' (line {line})' if line else ''}"
        raise PluginError(f"{shown(path)} could not be imported: {type(error).__name__}: {reason}") from error
    return module


def _line(error: BaseException, file: str) -> int | None:
    """The line of the file that an error of its import comes from; None where nothing says it."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return error.lineno
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None
