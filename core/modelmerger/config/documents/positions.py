"""Where in a config file the keys stand that a problem is about."""

import re
from collections.abc import Iterator

import yaml

from modelmerger.values.errors import Problem

_QUOTED = re.compile(r"'([^']+)'")
_FIRST = 20_000
"""Values among which a quoted one is looked for."""


def line_of(problem: Problem, text: str) -> int | None:
    """The line, counted from 1, of what a problem of a config is about; None where it is about no key of the text.

    text: YAML or JSON that was read without an error. A key that is unknown is found by its name in the message; of a
    problem without a place, the first value that it quotes.
    """
    try:
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError):  # JSON may be indented with tabs
        return None
    where = "" if problem.where == "config" else problem.where
    found = _inside(root, where)
    quoted = _QUOTED.findall(problem.message)
    if found is None:
        return None
    if isinstance(found, yaml.MappingNode) and problem.message.startswith("unknown key"):
        return next((_line(key) for key, _ in found.value if key.value in quoted[:1]), None)
    if not where:
        return next((_line(node) for node in _scalars(root) if node.value in quoted), None)
    return _line(found)


def _line(node: yaml.Node) -> int:
    line: int = node.start_mark.line
    return line + 1


def _inside(node: yaml.Node | None, where: str) -> yaml.Node | None:
    """The node at `models[1].weight`; keys may hold dots and brackets themselves."""
    if node is None or not where:
        return node
    where = where.removeprefix(".")
    if isinstance(node, yaml.SequenceNode):
        entry = re.match(r"\[(\d+)\]", where)
        if entry is None or int(entry[1]) >= len(node.value):
            return None
        return _inside(node.value[int(entry[1])], where[entry.end() :])
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            rest = where.removeprefix(key.value)
            if isinstance(key.value, str) and rest != where and rest[:1] in ("", ".", "["):
                found = _inside(value, rest)
                if found is not None:
                    return key if found is value else found
    return None


def _scalars(root: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    """Values, each once however many aliases name it, in their order."""
    seen: set[int] = set()
    waiting = [root]
    while waiting and len(seen) < _FIRST:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            yield node
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(reversed(node.value))
        elif isinstance(node, yaml.MappingNode):
            waiting.extend(value for _, value in reversed(node.value))
