"""The stages of a merge, from a config as plain data."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from modelmerger import MergeReport, run
from modelmerger.config.resolve import resolve
from modelmerger.hooks.assembly import Hooks, assemble, plugins_of
from modelmerger.hooks.registry import Registry
from modelmerger.planning.prepared import Prepared
from modelmerger.planning.prepared import prepare as preparing


def run_merge(config: Mapping[str, Any], output: Path | None = None, **arguments: Any) -> MergeReport:
    """Merges and publishes, and validates nothing."""
    return run.run_merge(*resolve(config), output, **arguments)


@contextmanager
def prepared(config: Mapping[str, Any], *kept: Any) -> Iterator[Prepared]:
    """All that happens before the first write."""
    with preparing(*resolve(config), *kept) as ready:
        yield ready


@cache
def always_on() -> Hooks:
    """The plugins that are always on, with the options that they have by default."""
    return assemble(plugins_of(Registry.installed(), None))
