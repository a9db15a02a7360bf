"""YAML as events, by way of PyYAML's. Whatever an alias stands for is repeated where it stands.

Imported only where YAML is read or written, since PyYAML takes as long to import as the rest of the command line.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from modelmerger.config.documents.tree import END, Event, Place, UnreadableError, not_a_mapping, read_int, show

# PyYAML's parser in Python may take a second for 32 KiB; the one in C answers a mebibyte in that time.
MAX_BYTES_WITHOUT_LIBYAML = 16 * 1024

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CORE_SCHEMA: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{sign + word: float(sign + "inf") for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
}
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]*+)")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]++")
OCTAL = re.compile(r"0o[0-7]++|[-+]?0[0-9]++")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]++|[0-9]++(?:\.[0-9]*+)?)(?:[eE][-+]?[0-9]++)?")

# At the start of a line libyaml takes '%' for a directive everywhere but inside a quoted text. They are refused before
# parsing: libyaml needs a minute for a mebibyte of %TAG lines, and PyYAML's own parser trips over long version numbers.
_DIRECTIVE = re.compile("(?:^|[\n\r\x85\u2028\u2029])%")

_NO_TAGS = "tag {} is not supported. Remove it; put a text that starts with '!' in quotes."
_NO_ANCHOR = "{} does not name an anchor that comes before. Put a text that starts with '&' or '*' in quotes."
_HINTS = {
    "mapping values are not allowed": "Put a text that contains ': ' in quotes, and check the indentation.",
    "cannot start any token": "Put a text that starts with '@', '%' or '`' in quotes; indent with spaces, not tabs.",
}
_NO_CHARACTER = "this is not YAML (an escape or a tag stands for no character). Check what follows '\\' and '!'."
_HINT = "Check the indentation, the colons and the quotes there and just before."


def yaml_events(text: str) -> Iterator[Event]:
    """The events of a YAML text; `UnreadableError` where it is no YAML, or more than one document."""
    if _PARSER is yaml.SafeLoader and len(text.encode()) > MAX_BYTES_WITHOUT_LIBYAML:
        raise UnreadableError(
            f"more than {MAX_BYTES_WITHOUT_LIBYAML:,} bytes of YAML need a PyYAML that is built with libyaml, "
            "this one is not. Install PyYAML's wheel, or write the document as JSON."
        )
    if found := _DIRECTIVE.search(text):
        line = len(re.findall("\r\n|[\n\r\x85\u2028\u2029]", text[: found.end() - 1])) + 1
        raise UnreadableError(f"{Place(line, 1)}: a line starts with '%' (a YAML directive). Remove it, or indent it.")
    try:
        yield from _events(text)
    except yaml.MarkedYAMLError as error:
        raise UnreadableError(_explain(error, text)) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        raise UnreadableError(_NO_CHARACTER) from None


def plain_scalar(text: str) -> str | float | bool | None:
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
    if FLOAT.fullmatch(text) and not OCTAL.fullmatch(text):
        return float(text)
    return text


def _events(text: str) -> Iterator[Event]:
    told: list[Event] = []
    anchors: dict[str, int] = {}  # where in `told` the node begins that an anchor names
    ends: dict[int, int] = {}  # where a node ends that begins there
    open_: list[int] = []
    event: Any
    for event in yaml.parse(text, Loader=_PARSER):
        begin, place = len(told), Place(event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.DocumentStartEvent) and told:
            raise UnreadableError(f"{place}: a second document starts. Keep one document in a file.")
        if isinstance(event, yaml.CollectionEndEvent):
            told.append(Event(END, place))
            ends[open_.pop()] = len(told)
        elif isinstance(event, yaml.AliasEvent):
            name = show(f"*{event.anchor}")
            if (first := anchors.get(event.anchor or "")) is None:
                raise UnreadableError(f"{place}: {_NO_ANCHOR.format(name)}")
            if first not in ends:
                raise UnreadableError(f"{place}: {name} stands for something that it is a part of. Write it out.")
            told += [told[first]._replace(place=place), *told[first + 1 : ends[first]]]
        elif isinstance(event, yaml.NodeEvent):
            told.append(_of_node(event, place))
            if event.anchor is not None:
                anchors[event.anchor] = begin
            if isinstance(event, yaml.ScalarEvent):
                ends[begin] = len(told)
            else:
                open_.append(begin)
        yield from told[begin:]
    if not told:
        raise UnreadableError(not_a_mapping("empty"))


def _of_node(event: Any, place: Place) -> Event:
    problem = ""
    if event.tag is not None:
        problem = f"{place}: {_NO_TAGS.format(show(event.tag.replace('tag:yaml.org,2002:', '!!', 1)))}"
    if not isinstance(event, yaml.ScalarEvent):
        return Event(dict if isinstance(event, yaml.MappingStartEvent) else list, place, problem=problem)
    if event.style:
        return Event(event.value, place, problem=problem)
    return Event(plain_scalar(event.value), place, event.value, problem)


def _explain(error: yaml.MarkedYAMLError, text: str) -> str:
    context, problem = error.context or "", error.problem or "unknown problem"
    start, mark = error.context_mark or error.problem_mark, error.problem_mark or error.context_mark
    if start is None or mark is None:
        return f"this is not YAML ({problem}). {_HINT}"
    begins, place = Place(start.line + 1, start.column + 1), Place(mark.line + 1, mark.column + 1)
    word = "".join(text[start.index : start.index + 200].split()[:1]).rstrip(":,")
    if context.endswith(("an alias", "an anchor")):
        return f"{begins}: {_NO_ANCHOR.format(show(word))}"
    if "a tag" in context or "tag handle" in problem:
        return f"{begins}: {_NO_TAGS.format(show(word))}"
    where = f" {context} that starts at {begins}" if context and begins != place else ""
    hint = next((hint for words, hint in _HINTS.items() if words in problem), _HINT)
    return f"{place}: this is not YAML ({problem}{where}). {hint}"
