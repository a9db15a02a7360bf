"""Whether the file of a plugin still holds what was imported from it."""

import ast
import inspect
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import Any


def has_changed(plugin: Any) -> bool:
    """Whether the file of a module, or of an object's class, holds other functions or constants than were imported.

    Values that its code computes are not seen here. They are part of what `state_digest` digests.
    """
    home = plugin if inspect.ismodule(plugin) else type(plugin)
    try:
        file = inspect.getsourcefile(home) or ""
        source = Path(file).read_bytes()
        now = set(_codes(compile(source, file, "exec", dont_inherit=True)))
        tree = ast.parse(source if inspect.ismodule(plugin) else b"")
    except (OSError, TypeError, SyntaxError, ValueError):
        return False
    imported = (value.__code__ for value in vars(home).values() if inspect.isfunction(value))
    return any(code.co_filename == file and code not in now for code in imported) or any(
        _differs(node, vars(home), _assigned_later(tree)) for node in tree.body
    )


def _assigned_later(tree: ast.Module) -> set[str]:
    """Names of a module that its functions give another value as they run."""
    return {name for node in ast.walk(tree) if isinstance(node, ast.Global) for name in node.names}


def _differs(node: ast.stmt, imported: Mapping[str, Any], assigned_later: Container[str]) -> bool:
    """Whether a function or class is missing from what was imported, or a number or text has another value there."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name not in imported
    if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Constant):
        return False
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [target.id for target in targets if isinstance(target, ast.Name) and target.id not in assigned_later]
    return any(repr(imported.get(name)) != repr(node.value.value) for name in names)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
