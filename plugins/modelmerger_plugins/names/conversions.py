"""What transformers renames as it loads a family of models: read from its source, since importing it takes seconds."""

import ast
import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from modelmerger_plugins.transformers_classes import source_of_family, source_of_transformers

Renaming = tuple[str, str]
"""A regular expression of what stands in names of files, and what its modules are called."""
_OF_OTHERS, _KINDS = "_MODEL_TO_CONVERSION_PATTERN", "mapping"
"""Where its source has the families that are treated as another, and the renamings of each."""
_INNER = re.compile(r"^class (\w+Model)\(", re.MULTILINE)


def spelled_in_memory(config: Mapping[str, Any]) -> Callable[[str], str] | None:
    """A function from names in files to names in memory, for models of a config; None where nothing is renamed.

    Names in memory stay as they are. Tensors that are put together or taken apart are left alone.
    """
    others, renamings = _conversions()
    found = [
        renaming
        for kind in dict.fromkeys(_kinds(config))
        for renaming in renamings.get(kind) or renamings.get(others.get(kind, "")) or ()
    ]
    return functools.partial(_renamed, found) if found else None


def _kinds(config: Mapping[str, Any]) -> Iterator[str]:
    """What transformers looks up for a model: its class, its type, and the classes that may be within it."""
    classes = config.get("architectures")
    own = classes[0] if isinstance(classes, list) and classes else None
    yield from (kind for kind in (own, config.get("model_type")) if isinstance(kind, str))
    yield from _INNER.findall(source_of_family(config))


def _renamed(renamings: Sequence[Renaming], name: str) -> str:
    for old, new in renamings:
        with contextlib.suppress(re.error):  # what is no expression for Python's engine
            name = re.sub(old, new, name)
    return name


@functools.cache
def _conversions() -> tuple[Mapping[str, str], Mapping[str, list[Renaming]]]:
    """Family → the one that it is treated as; family → its renamings. Both are empty where the source is another."""
    others: dict[str, str] = {}
    renamings: dict[str, list[Renaming]] = {}
    try:
        tree = ast.parse(source_of_transformers("../conversion_mapping.py"))
    except SyntaxError:
        return others, renamings
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign | ast.AugAssign) or node.value is None:
            continue
        target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
        if isinstance(target, ast.Name) and isinstance(node.value, ast.Dict):
            entries = zip(node.value.keys, node.value.values, strict=True)
            known = {text: value for key, value in entries if (text := _text(key))}
            if target.id == _OF_OTHERS:
                others |= {key: text for key, value in known.items() if (text := _text(value))}
            elif target.id == _KINDS:
                renamings |= {key: list(_in_list(value, renamings)) for key, value in known.items()}
        elif (key := _entry(target)) is not None:
            before = renamings.get(key, []) if isinstance(node, ast.AugAssign) else []
            renamings[key] = [*before, *_in_list(node.value, renamings)]
    return others, renamings


def _entry(node: ast.expr) -> str | None:
    """The key of `mapping["key"]`."""
    if not isinstance(node, ast.Subscript) or not isinstance(node.value, ast.Name) or node.value.id != _KINDS:
        return None
    return _text(node.slice) or None


def _text(node: ast.expr | None) -> str:
    """The text that stands in the source; empty where anything else does."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _in_list(node: ast.expr, known: Mapping[str, list[Renaming]]) -> Iterator[Renaming]:
    """The renamings of a list, of a copy of another's, or of two of these that are added up."""
    if isinstance(node, ast.List):
        for entry in node.elts:
            yield from _renaming(entry)
    elif isinstance(node, ast.BinOp):
        yield from _in_list(node.left, known)
        yield from _in_list(node.right, known)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "copy":
        yield from _in_list(node.func.value, known)
    elif (key := _entry(node)) is not None:
        yield from known.get(key, [])


def _renaming(node: ast.expr) -> Iterator[Renaming]:
    """What `WeightRenaming` is called with, if these are texts."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id != "WeightRenaming":
        return
    named = {word.arg: word.value for word in node.keywords}
    given = [*node.args, *(named[key] for key in ("source_patterns", "target_patterns") if key in named)]
    if len(given) != 2:
        return
    for old in given[0].elts if isinstance(given[0], ast.List) else [given[0]]:
        if _text(old) and isinstance(given[1], ast.Constant):  # the new name may be empty
            yield _text(old), _text(given[1])
