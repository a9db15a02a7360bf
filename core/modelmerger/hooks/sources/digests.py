"""Digests of plugins: of their source, with the modules of their own that they import, and of what objects hold."""

import inspect
import pickle
from collections.abc import Collection
from pathlib import Path
from typing import Any

from blake3 import blake3

from modelmerger.hooks.sources.own_modules import own_modules


def source_digest(plugin: Any, shipped: Collection[str] = ()) -> str:
    """The BLAKE3 digest of the file that a module, or the class of an object, is in; empty where there is none.

    It covers the modules of its own that the plugin imports. shipped: as for `own_modules`.
    """
    try:
        source = Path(inspect.getsourcefile(plugin if inspect.ismodule(plugin) else type(plugin)) or "")
        digest = blake3(source.read_bytes())
        home = plugin.__name__ if inspect.ismodule(plugin) else type(plugin).__module__
        for name, content in sorted(own_modules(home, source, shipped).items()):
            digest.update(f"\n{name} {blake3(content).hexdigest()}".encode())
    except (OSError, TypeError):
        return ""
    return digest.hexdigest()


def content_digest(plugin: Any) -> str:
    """As `source_digest`; that of an object covers what it holds too. Empty where either cannot be had."""
    source = source_digest(plugin) or _digest_of_cell(plugin)
    if not source or inspect.ismodule(plugin):
        return source
    try:
        held = pickle.dumps(plugin.__getstate__())
    except Exception:
        return ""
    return blake3(source.encode() + held).hexdigest()


def _digest_of_cell(plugin: Any) -> str:
    """That of the source of a class that is written in a notebook."""
    try:
        return blake3(inspect.getsource(type(plugin)).encode()).hexdigest()
    except (OSError, TypeError):
        return ""
