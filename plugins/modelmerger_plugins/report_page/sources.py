"""The models that were merged, as the page lists them: from the manifest."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from modelmerger import shown_weight


@frozen
class Source:
    """A model that was merged, or the base model."""

    name: str
    """As in the config, or made from the path."""
    path: str
    """The path or Hub id that the config gives."""
    revision: str
    """The commit of a model by Hub id, else empty."""
    weight: str
    """As the config gives it, in one line; empty for the base model."""
    role: str
    """`base`, or `subtracted`; empty for a model that was added."""


def sources_of(manifest: Mapping[str, Any]) -> list[Source]:
    """The models in the order of the config, then the base model."""
    models = manifest["config"]["models"]
    found = []
    for place, source in enumerate(manifest["sources"]):
        given = models[place] if place < len(models) else None
        weight, role = "", "base"
        if given is not None:
            weight = shown_weight(_as_weight(given.get("weight", 1.0)))
            role = "subtracted" if given.get("operation") == "subtract" else ""
        found.append(Source(source["name"], source["path"], source.get("revision", ""), weight, role))
    return found


def _as_weight(given: Any) -> Any:
    """Weights as plain data have lists where the core has tuples."""
    if isinstance(given, Mapping):
        return {str(key): _as_weight(value) for key, value in given.items()}
    return tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else given
