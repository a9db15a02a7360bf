"""Plugins of fake installed distributions, each in a module with a name of its own."""

import itertools
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

GROUPS = {
    "strategy": ("modelmerger.strategies",),
    "validator": ("modelmerger.validators",),
    "default validator": ("modelmerger.validators", "modelmerger.default_validators"),
    "executor": ("modelmerger.executors",),
    "plugin": ("modelmerger.plugins",),
    "reader": ("modelmerger.config_readers",),
    "reading plugin": ("modelmerger.config_readers", "modelmerger.plugins"),
    "command": ("modelmerger.commands",),
}
WEIGHTS_SQUARED = """
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, None))

@hookimpl
def find_coefficients(weights):
    return [weight**2 for weight in weights]
"""
_PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BUILT_IN_STRATEGIES = sorted(_PROJECT["entry-points"]["modelmerger.strategies"])
_numbers = itertools.count()


def install(
    distribution: Callable[..., Path],
    plugins: Iterable[tuple[str, str, str]],
    name: str = "acme-merge",
    version: str = "1.0",
) -> list[str]:
    """Installs plugins, each given as (kind, name, source); their module names."""
    entries: dict[str, list[str]] = {}
    modules = {}
    for kind, plugin, source in plugins:
        module = f"acme_{plugin.replace('-', '_')}_{next(_numbers)}"
        modules[module] = source
        for group in GROUPS[kind]:
            entries.setdefault(group, []).append(f"{plugin} = {module}")
    text = "\n".join(f"[{group}]\n" + "\n".join(lines) + "\n" for group, lines in entries.items())
    distribution(name, version, text, **modules)
    return list(modules)
