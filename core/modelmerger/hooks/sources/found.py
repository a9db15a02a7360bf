"""The files of installed modules, of which none is imported to find them."""

import ast
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path


def spec_of(module: str, known: dict[str, ModuleSpec | None] | None = None) -> ModuleSpec | None:
    """Where a module comes from; None where it is not found. Its packages are not imported either.

    known: what was found before, to which it is added.
    """
    known = {} if known is None else known
    if module not in known:
        package = module.rpartition(".")[0]
        above = spec_of(package, known) if package else None
        places = above.submodule_search_locations if above is not None else None
        # what is taken from a module that is no package is no module
        known[module] = None if package and places is None else PathFinder.find_spec(module, places)
    return known[module]


def source_of(module: str) -> bytes:
    """The source of an installed module; empty where it is not found."""
    spec = spec_of(module)
    try:
        return Path((spec.origin if spec else None) or "").read_bytes()
    except OSError:
        return b""


def summary_of(module: str) -> str:
    """The first line of an installed module's docstring; empty where it has none."""
    try:
        text = ast.get_docstring(ast.parse(source_of(module))) or ""
    except (SyntaxError, ValueError):
        return ""
    return text.partition("\n")[0]


def imported_names(tree: ast.Module, module: str, package: bool) -> Iterator[tuple[str, str]]:
    """The imports of a module, within functions too: the name of a module, and what is taken of it, or nothing.

    package: whether the module is the `__init__` of a package.
    """
    home = module.split(".") if package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = home[: len(home) + 1 - node.level] if node.level else []
            name = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((name, alias.name) for alias in node.names)
