"""The source of plugins: found without importing anything, read, and digested."""

import ast
import inspect
import pickle
from collections.abc import Container, Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import CodeType
from typing import Any

from blake3 import blake3


def source_of(module: str) -> bytes:
    """The source of an installed module, which is not imported, nor are its packages; empty where it is not found."""
    spec: ModuleSpec | None = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, spec.submodule_search_locations if spec is not None else None)
        if spec is None:
            return b""
    try:
        return Path((spec.origin if spec else None) or "").read_bytes()
    except OSError:
        return b""


def summary_of(module: str) -> str:
    """The first line of a module's docstring, from its source: the module is not imported. Empty where it has none."""
    try:
        text = ast.get_docstring(ast.parse(source_of(module))) or ""
    except (SyntaxError, ValueError):
        return ""
    return text.partition("\n")[0]


def source_digest(plugin: Any) -> str:
    """The BLAKE3 digest of the file that a module, or the class of an object, is in; empty where there is none."""
    try:
        source = inspect.getsourcefile(plugin if inspect.ismodule(plugin) else type(plugin))
        return blake3(Path(source or "").read_bytes()).hexdigest()
    except (OSError, TypeError):
        return ""


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


def _digest_of_cell(plugin: Any) -> str:
    """That of the source of a class that is written in a notebook."""
    try:
        return blake3(inspect.getsource(type(plugin)).encode()).hexdigest()
    except (OSError, TypeError):
        return ""
