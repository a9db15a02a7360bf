"""Python values to YAML, quoted wherever YAML 1.1 or 1.2 would read something else.

Imported only where YAML is written, since PyYAML takes as long to import as the rest of the command line.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from modelmerger.config.documents.tree import END, Event, show
from modelmerger.config.documents.yaml_events import FLOAT, OCTAL
from modelmerger.values.text import shown


def write_yaml(data: dict[str, Any]) -> str:
    """YAML of plain values, in the order of the keys."""
    text: str = yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=2**31
    )
    return text


def value_events(value: Any, path: str = "") -> Iterator[Event]:
    """The events of a Python value. Subclasses (an enum's text, numpy.float64) become the plain type that is read back."""
    place = shown(path) or "the top level"
    if isinstance(value, Mapping):
        yield Event(dict, place)
        for key, item in value.items():
            below = f"{path}.{key}" if path else str(key)
            if isinstance(key, str):
                yield Event(str.__str__(key), shown(below))
            else:
                yield Event(None, place, problem=f"{place}: key {show(repr(key))} is not a text. Give a text.")
            yield from value_events(item, below)
        yield Event(END, place)
    elif isinstance(value, list | tuple):
        yield Event(list, place)
        for index, item in enumerate(value):
            yield from value_events(item, f"{path}[{index}]")
        yield Event(END, place)
    elif value is None or isinstance(value, bool):
        yield Event(value, place, repr(value))
    elif isinstance(value, str):
        yield Event(str.__str__(value), place)
    elif isinstance(value, int):
        yield Event(int(value), place, hex(value))
    elif isinstance(value, float):
        yield Event(float(value), place, repr(float(value)))
    else:
        problem = f"{place}: a {show(type(value).__name__)} cannot be written to YAML. Give texts, numbers, lists or mappings."
        yield Event(None, place, problem=problem)


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
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(rf"(?:{FLOAT.pattern})\Z"), list("+-.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(rf"(?:{OCTAL.pattern})\Z"), list("+-0"))
