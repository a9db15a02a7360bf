"""The modules that a plugin imports of its own project, and those that these import.

They decide what the plugin does as much as its own file does. A module is the plugin's own if it is in the same
top-level package, if it comes in the same distribution, or, outside of `site-packages`, if it lies beside the plugin.
"""

import ast
import functools
from collections.abc import Collection, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

from modelmerger.hooks.providers import BUILT_IN
from modelmerger.hooks.sources.found import imported_names, spec_of

_SHARED = {"site-packages", "dist-packages"}
"""Names of folders where every distribution puts its modules side by side."""


def own_modules(plugin: str, file: Path, shipped: Collection[str] = ()) -> dict[str, bytes]:
    """The contents of a plugin's own modules by name, without that of the plugin itself.

    plugin: the name of its module. file: its file. shipped: the top-level modules and packages of its distribution.
    """
    root = _root(plugin, file)
    beside = root if root.name not in _SHARED else None
    found: dict[str, bytes] = {}
    known: dict[str, ModuleSpec | None] = {}
    asked = {plugin}
    waiting = [(plugin, file, file.read_bytes()), *_parents(plugin, plugin, beside, shipped, asked, known)]
    while waiting:
        name, source, content = waiting.pop()
        found[name] = content
        for imported in _imports(name, source.suffix, source.name == "__init__.py", content):
            if imported not in asked:
                waiting += _parents(imported, plugin, beside, shipped, asked, known)
    del found[plugin]
    return found


def _root(module: str, file: Path) -> Path:
    """The folder that the top-level package or module lies in."""
    folders = file.parents
    return folders[min(module.count(".") + (file.name == "__init__.py"), len(folders) - 1)]


@functools.lru_cache(maxsize=512)
def _imports(name: str, suffix: str, package: bool, content: bytes) -> tuple[str, ...]:
    """The modules that a module may import. What is taken of a module may be a module too."""
    try:
        tree = ast.parse(content) if suffix == ".py" else ast.Module([], [])
    except (SyntaxError, ValueError):
        return ()
    names = imported_names(tree, name, package)
    return tuple(each for module, taken in names for each in _both(module, taken))


def _both(module: str, taken: str) -> tuple[str, ...]:
    return (module,) if taken in ("", "*") else (module, f"{module}.{taken}")


def _parents(
    module: str,
    plugin: str,
    beside: Path | None,
    shipped: Collection[str],
    asked: set[str],
    known: dict[str, ModuleSpec | None],
) -> Iterator[tuple[str, Path, bytes]]:
    """A module and the packages it is in, with their files, as far as they are the plugin's own and not asked before.

    known: as for `spec_of`.
    """
    parts = module.split(".")
    top, home = parts[0], plugin.partition(".")[0]
    if not top or (top == BUILT_IN and home != BUILT_IN):
        return
    if top != home and top not in shipped and (beside is None or not _lies_in(top, beside, known)):
        return
    for length in range(1, len(parts) + 1):
        name = ".".join(parts[:length])
        spec = spec_of(name, known) if name not in asked else None
        asked.add(name)
        if spec is not None and spec.has_location and spec.origin:
            file = Path(spec.origin)
            yield name, file, file.read_bytes()


def _lies_in(top: str, folder: Path, known: dict[str, ModuleSpec | None]) -> bool:
    spec = spec_of(top, known)
    places = [spec.origin or "", *(spec.submodule_search_locations or ())] if spec is not None else []
    return any(place and Path(place).parent in (folder, folder / top) for place in places)
