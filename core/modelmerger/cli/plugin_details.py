"""What `modelmerger plugins NAME` says of a plugin, which is the only one that it imports."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import attrs

from modelmerger.config.schema import descriptions_of
from modelmerger.hooks.plugins import load
from modelmerger.hooks.providers import Provider
from modelmerger.hooks.sources.found import summary_of
from modelmerger.values.text import shown

_WHERE = MappingProxyType({"options": "options", "model_options": "keys of each of models", "read": "--read"})
"""What each group of options is called in print."""


def details_of(provider: Provider, off: str | None) -> dict[str, Any]:
    """The plugin as plain data. off: why it is switched off; it is not imported then. Raises `PluginError`.

    An option without a default has no key `default`.
    """
    plugin = load(provider) if off is None else None
    known = {
        "kind": provider.kind,
        "name": provider.name,
        "distribution": provider.distribution,
        "version": provider.version,
        "on": off is None,
        "summary": summary_of(provider.module),
    }
    if plugin is None:
        return known | {"reason": off}
    classes = {"options": plugin.options, "model_options": plugin.model_options, "read": plugin.read_options}
    metrics = getattr(plugin.module, "metrics", None)
    if metrics and not callable(metrics):  # else they depend on its options
        known["metrics"] = dict(metrics)
    return known | {key: list(_options(cls)) for key, cls in classes.items() if cls is not None}


def lines_of(details: Mapping[str, Any]) -> Iterator[str]:
    """The plugin in print."""
    state = "" if details["on"] else f"  (off: {details['reason']})"
    yield f"{details['kind']} {shown(details['name'])}, {shown(details['distribution'])} {details['version']}{state}"
    if details["summary"]:
        yield f"  {shown(details['summary'])}"
    if metrics := details.get("metrics"):
        yield "metrics:"
        yield from _aligned([[name, f"{way} is better"] for name, way in metrics.items()])
    for key, where in _WHERE.items():
        if options := details.get(key):
            heading = "keys of validation" if details["kind"] == "validator" and key == "options" else where
            yield f"{heading}:"
            yield from _aligned([[one["name"], _default(one), one["description"]] for one in options])


def _options(cls: type) -> Iterator[dict[str, Any]]:
    descriptions: dict[str, str] = {}
    with contextlib.suppress(OSError, TypeError, SyntaxError):  # the source is not at hand
        descriptions = descriptions_of(cls)
    for field in attrs.fields(cls):
        default = field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, whatever its stub says
            default = None if default.takes_self else default.factory()
        told = {"name": field.name, "description": descriptions.get(field.name, "")}
        yield told if default is attrs.NOTHING else told | {"default": _plain(default)}


def _plain(value: Any) -> Any:
    """A default as JSON has it; as a text where it is nothing of the kind."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError):
        return str(value)


def _default(option: Mapping[str, Any]) -> str:
    if "default" not in option:
        return "(must be given)"
    value = option["default"]
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    rows = [[shown(cell, 400) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
