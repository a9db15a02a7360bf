"""YAML to plain values and back. Imported only when it is needed, since importing PyYAML takes long."""

import re
from typing import Any

import yaml

from modelmerger.config.documents.contents import Contents
from modelmerger.values.errors import ConfigError
from modelmerger.values.text import shown

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*+)|0x[0-9a-fA-F]++")
_OCTAL = re.compile(r"0o[0-7]++|[-+]?0[0-9]++")
_FLOAT = re.compile(r"[-+]?(?:(?:\.[0-9]++|[0-9]++(?:\.[0-9]*+)?)(?:[eE][-+]?[0-9]++)?|\.(?i:inf|nan))")
# libyaml needs a minute for a mebibyte of %TAG lines: it is not given any.
_DIRECTIVE = re.compile("(?:^|[\n\r\x85\u2028\u2029])%")
_HINT = "Check indentation, colons and quotes there and before; quote a text that holds ': ' or starts with &*!%@`."


def read_yaml(text: str, contents: Contents) -> Any:
    """The value of a YAML text, None for an empty one. Raises `ConfigError` for a text that is not YAML."""
    if found := _DIRECTIVE.search(text):
        line = text.count("\n", 0, found.end()) + 1
        raise ConfigError(f"line {line}, column 1: '%' starts a YAML directive here. Remove the line, or indent it.")
    try:
        node = _Loader(text).get_single_node()
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        place = f"{_place(mark)}: " if (mark := getattr(error, "problem_mark", None)) else ""
        said = [getattr(error, "context", None), getattr(error, "problem", None) or "an escape stands for no character"]
        raise ConfigError(f"{place}this is not YAML ({shown(' '.join(filter(None, said)))}). {_HINT}") from None
    return _value(node, contents, 0) if node else None


def write_yaml(data: dict[str, Any]) -> str:
    """YAML of plain values, in the order of the keys."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**31)
    # What would show people the text in another order; it stands in double quotes.
    return re.sub("[\u202a-\u202e\u2066-\u2069]", lambda found: f"\\u{ord(found[0]):04x}", text)


# mypy takes no base class that is found out at import: libyaml is not in every build of PyYAML.
class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Composes no more nodes than a document may hold, without tags except those in the text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth, self._contents = 0, Contents()

    def descend_resolver(self, parent: yaml.Node | None, _: object) -> None:
        self._contents.count(_place(parent.start_mark) if parent else "", self._depth)
        self._depth += 1

    def ascend_resolver(self) -> None:
        self._depth -= 1

    def resolve(self, *_: object) -> None:
        return None


def _value(node: Any, contents: Contents, depth: int) -> Any:
    place = _place(node.start_mark)
    if node.tag:
        written = shown(node.tag.replace("tag:yaml.org,2002:", "!!"), 60)
        contents.report(place, f"tag '{written}' is not supported. Remove it, or quote the text.")
    if isinstance(node, yaml.ScalarNode):
        contents.count(place, text=node.value)
        return contents.scalar(node.value if node.style else _plain_scalar(node.value), place)
    contents.count(place, depth + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(member, contents, depth + 1) for member in node.value]
    return _mapping(node, contents, depth + 1)


def _one_number(before: str, digits: str) -> str:
    """What to write if both are one number; empty where they cannot be."""
    from modelmerger.config.documents.written_numbers import written_plainly

    return written_plainly(f"{before},{digits}")


def _mapping(node: Any, contents: Contents, depth: int) -> dict[str, Any]:
    """The keys that are merged, then those of the mapping; where both have one, with the value of the mapping."""
    own: dict[str, Any] = {}
    merging = before = ""
    for key_node, value_node in node.value:
        key, place = _value(key_node, contents, depth), _place(key_node.start_mark)
        unquoted = isinstance(key_node, yaml.ScalarNode) and not key_node.style
        digits = key_node.value if unquoted and node.flow_style and _is_left_empty(value_node) else ""
        if before and digits and (hint := _one_number(before, digits)):
            contents.report(place, f"a comma begins a new key here. {hint}, if one number is meant.")
        elif not isinstance(key, str) or (unquoted and key.lower() in ("yes", "no", "on", "off")):
            written = shown(key_node.value if unquoted else key, 60)
            contents.report(place, f"key '{written}' is not a text to every reader of YAML. Put it in quotes.")
        elif key in own:
            contents.report(place, f"key '{shown(key, 60)}' is given twice. Remove one.")
        own[str(key)] = _value(value_node, contents, depth)
        before = value_node.value if isinstance(value_node, yaml.ScalarNode) and not value_node.style else ""
        merging = place if unquoted and key == "<<" else merging
    if merging:
        value = own.pop("<<")
        sources = value if isinstance(value, list) else [value]
        if all(isinstance(source, dict) for source in sources):  # the first one that has a key decides
            return {key: item for source in [*reversed(sources), own] for key, item in source.items()}
        contents.report(merging, "'<<' merges mappings. Give a mapping, an alias of one, or a list of them.")
    return own


def _is_left_empty(node: Any) -> bool:
    """Whether nothing is written for a value."""
    return isinstance(node, yaml.ScalarNode) and not node.style and node.value == ""


def _place(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


def _plain_scalar(text: str) -> str | float | bool | None:
    """The value of an unquoted scalar by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema).

    Octal numbers stay texts: `017` is 15 in YAML 1.1 and 17 in 1.2, and `0o17` a text in 1.1 and 15 in 1.2.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text, 0) if len(text) < 99 else 2**64  # long ones are out of range, and take Python long
    if _FLOAT.fullmatch(text) and not _OCTAL.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.2 would not take for a text; what YAML 1.1 would not, PyYAML quotes by itself."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    quoted = not isinstance(_plain_scalar(text), str) or _OCTAL.fullmatch(text)
    style = "'" if quoted else None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
