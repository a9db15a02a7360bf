"""The YAML side of documents: from PyYAML's events to a `Tree`, and from plain values to YAML text.

Imported only where YAML is read or written, since PyYAML takes as long to import as the rest of the command line.
"""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from modelmerger.config.documents.tree import Place, Scalar, Tree, UnreadableError, read_int, show

# PyYAML's parser in Python may take a second for 32 KiB; the one in C answers a mebibyte in that time.
MAX_BYTES_WITHOUT_LIBYAML = 16 * 1024

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CORE_SCHEMA: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
}
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]*+)")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]++")
_OCTAL = re.compile(r"0o[0-7]++|[-+]?0[0-9]++")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]++|[0-9]++(?:\.[0-9]*+)?)(?:[eE][-+]?[0-9]++)?")

_YES_NO_KEYS = frozenset(("yes", "no", "on", "off"))

# At the start of a line libyaml takes '%' for a directive everywhere but inside a quoted text. They are refused before
# parsing: libyaml needs a minute for a mebibyte of %TAG lines, and PyYAML's own parser trips over long version numbers.
_DIRECTIVE = re.compile("(?:^|[\n\r\x85\u2028\u2029])%")

_NO_ALIASES = (
    "anchors and aliases are not supported. Write the value out; put a text that starts with '&' or '*' in quotes."
)
_NO_TAGS = "tag {} is not supported. Remove it; put a text that starts with '!' in quotes."
_HINTS = {
    "mapping values are not allowed": "Put a text that contains ': ' in quotes, and check the indentation.",
    "cannot start any token": "Put a text that starts with '@', '%' or '`' in quotes; indent with spaces, not tabs.",
}
_NO_CHARACTER = "this is not YAML (an escape or a tag stands for no character). Check what follows '\\' and '!'."
_HINT = "Check the indentation, the colons and the quotes there and just before."


def fill_from_yaml(text: str, tree: Tree) -> None:
    """Hand the nodes of a YAML text to `tree`; `UnreadableError` where it is no YAML, or more than one document."""
    if _PARSER is yaml.SafeLoader and len(text.encode()) > MAX_BYTES_WITHOUT_LIBYAML:
        raise UnreadableError(
            f"more than {MAX_BYTES_WITHOUT_LIBYAML:,} bytes of YAML need a PyYAML that is built with libyaml, "
            "this one is not. Install PyYAML's wheel, or write the document as JSON."
        )
    if found := _DIRECTIVE.search(text):
        line = len(re.findall("\r\n|[\n\r\x85\u2028\u2029]", text[: found.end() - 1])) + 1
        raise UnreadableError(f"{Place(line, 1)}: a line starts with '%' (a YAML directive). Remove it, or indent it.")
    documents = 0
    try:
        for event in yaml.parse(text, Loader=_PARSER):
            if isinstance(event, yaml.NodeEvent):
                _take_node(event, tree)
            elif isinstance(event, yaml.CollectionEndEvent):
                tree.end()
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise UnreadableError(f"{_place(event)}: a second document starts. Keep one document in a file.")
    except yaml.MarkedYAMLError as error:
        raise UnreadableError(_explain(error, text)) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        raise UnreadableError(_NO_CHARACTER) from None
    if not documents:
        raise UnreadableError("the document is empty, it must be a mapping of keys to values ('key: value').")


def plain_scalar(text: str) -> Scalar:
    """The value of an unquoted scalar by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema).

    One exception: octal numbers stay texts, since `017` is 15 in YAML 1.1 and 17 in 1.2, and `0o17` a text in 1.1 and
    15 in 1.2. What is too large comes back as infinity or as an integer past 64 bits, for the tree to refuse.

    >>> plain_scalar("1e-8"), plain_scalar("no"), plain_scalar("1:30"), plain_scalar("017")
    (1e-08, 'no', '1:30', '017')
    """
    if text in _CORE_SCHEMA:
        return _CORE_SCHEMA[text]
    if _DECIMAL.fullmatch(text):
        return read_int(text)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    if _FLOAT.fullmatch(text) and not _OCTAL.fullmatch(text):
        return float(text)
    return text


def write_yaml(data: dict[str, Any]) -> str:
    """YAML of plain values, in the order of the keys; quoted wherever YAML 1.1 or 1.2 would read something else."""
    text: str = yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=2**31
    )
    return text


def _take_node(event: Any, tree: Tree) -> None:
    place = _place(event)
    if event.anchor is not None:
        is_alias = isinstance(event, yaml.AliasEvent)
        tree.report(place, "{}: {}", show(("*" if is_alias else "&") + event.anchor), _NO_ALIASES)
        if is_alias:
            if tree.awaits_key:
                tree.key(None, place)
            else:
                tree.scalar(None, place, "*")
            return
    if event.tag is not None:
        tree.report(place, _NO_TAGS, show(event.tag.replace("tag:yaml.org,2002:", "!!", 1)))
    if isinstance(event, yaml.ScalarEvent):
        if tree.awaits_key:
            tree.key(_key(event, place, tree), place)
        else:
            tree.scalar(event.value if event.style else plain_scalar(event.value), place, event.value)
    else:
        tree.begin({} if isinstance(event, yaml.MappingStartEvent) else [], place)


def _key(event: Any, place: Place, tree: Tree) -> str | None:
    text: str = event.value
    if event.style:
        return text
    if text == "<<":
        tree.report(place, "merge keys ('<<') are not supported. Write the keys out.")
    elif text == "":
        tree.report(place, "the key before ':' is missing. Write it, or \"\" for an empty one.")
    elif not isinstance(value := plain_scalar(text), str):
        kind = {bool: "a boolean", type(None): "null"}.get(type(value), "a number")
        tree.report(place, "key {} is {}, a key must be a text. Put it in quotes.", show(text), kind)
    elif text.lower() in _YES_NO_KEYS:
        tree.report(place, "key {} is a boolean to some readers of YAML. Put it in quotes.", show(text))
    else:
        return text
    return None


def _place(event: Any) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)


def _explain(error: yaml.MarkedYAMLError, text: str) -> str:
    context, problem = error.context or "", error.problem or "unknown problem"
    start, mark = error.context_mark or error.problem_mark, error.problem_mark or error.context_mark
    if start is None or mark is None:
        return f"this is not YAML ({problem}). {_HINT}"
    begins, place = Place(start.line + 1, start.column + 1), Place(mark.line + 1, mark.column + 1)
    word = "".join(text[start.index : start.index + 200].split()[:1]).rstrip(":,")
    if context.endswith(("an alias", "an anchor")):
        return f"{begins}: {show(word)}: {_NO_ALIASES}"
    if "a tag" in context or "tag handle" in problem:
        return f"{begins}: {_NO_TAGS.format(show(word))}"
    where = f" {context} that starts at {begins}" if context and begins != place else ""
    hint = next((hint for words, hint in _HINTS.items() if words in problem), _HINT)
    return f"{place}: this is not YAML ({problem}{where}). {hint}"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 (PyYAML's signature)
        return True

    def write_double_quoted(self, text: str, split: bool = True) -> None:  # noqa: ARG002 (PyYAML's signature)
        # PyYAML would escape everything beyond the basic plane, emoji among it; JSON's escapes are YAML's too.
        # Escaped as well: what would show a reader of the file its characters in another order.
        quoted = json.dumps(text, ensure_ascii=False)
        escaped = re.sub("[\x85\u2028-\u202e\u2066-\u2069\ufeff]", lambda c: f"\\u{ord(c[0]):04x}", quoted)
        self.write_indicator(escaped, True)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')


# A text that YAML 1.2 would take for a number gets quotes like those that PyYAML's YAML 1.1 rules find.
_Dumper.add_representer(str, _represent_text)
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"(?:{_FLOAT.pattern})\Z"), list("+-.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(rf"(?:{_OCTAL.pattern})\Z"), list("+-0"))
