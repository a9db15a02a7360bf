"""The geometry of a merge from its first layer to its last: how far each model moved, and how far each two agree."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen
from modelmerger import layer_of, precedes_layers

from modelmerger_plugins.pages.plots import Series, Value
from modelmerger_plugins.report_page.geometry import MERGED, Geometry, kept, together

Key = tuple[int, str, int]
"""Before, in or behind the layers; the prefix of the layers; the number of the layer."""


@frozen
class Layers:
    """How the models lie to each other in each layer."""

    from_base: bool
    """Whether differences are taken from the base model; else they are taken from the merged one."""
    places: Sequence[str]
    """The names of the layers in order."""
    distances: Sequence[Series]
    """‖Δ‖ / ‖θ‖ of each model: the length of its difference beside that of the origin."""
    cosines: Sequence[Series] = ()
    """Of the differences of each two models, where there is a base model."""
    conflicts: Sequence[Series] = ()
    """Of the values that both of two models change, the share that they change in opposite directions; needs a base."""
    apart: Sequence[Series] = ()
    """The distance of each two models beside the length of the origin, where there is no base model."""


def layers_of(manifest: Mapping[str, Any]) -> Layers | None:
    """What a manifest holds of it; None where nothing was collected."""
    tensors = kept(manifest)
    with_base = {name: sums for name, sums in tensors.items() if "base" in sums}
    chosen = with_base or tensors
    if not chosen:
        return None
    groups: dict[Key, list[Mapping[str, int]]] = {}
    for name, sums in chosen.items():
        groups.setdefault(_key(name), []).append(sums)
    keys = sorted(groups)
    found = [together(groups[key]) for key in keys]
    names = {str(place): source["name"] for place, source in enumerate(manifest["sources"])}
    pairs = list(dict.fromkeys(pair for geometry in found for pair in geometry.dots))
    several = len({prefix for _, prefix, _ in keys if prefix}) > 1
    places = [_place(key, several) for key in keys]

    def of_models(value: Callable[[Geometry, str], Value]) -> list[Series]:
        moved = dict.fromkeys(name for geometry in found for name in geometry.norms if name != MERGED)
        return [Series(names[i], [value(geometry, i) for geometry in found]) for i in moved]

    def of_pairs(value: Callable[[Geometry, tuple[str, str]], Value]) -> list[Series]:
        return [Series(f"{names[i]} and {names[j]}", [value(g, (i, j)) for g in found]) for i, j in pairs]

    if not with_base:
        return Layers(False, places, of_models(_distance), apart=of_pairs(_apart))
    merged = Series(MERGED, [_distance(geometry, MERGED) for geometry in found], dashed=True)
    return Layers(True, places, [*of_models(_distance), merged], of_pairs(_cosine), of_pairs(_conflicts))


def _key(tensor: str) -> Key:
    layer = layer_of(tensor)
    if layer is not None:
        return 1, *layer
    return (0 if precedes_layers(tensor) else 2), "", 0


def _place(key: Key, several: bool) -> str:
    where, prefix, number = key
    if where != 1:
        return "before" if where == 0 else "after"
    return f"{prefix} {number}" if several else str(number)


def _distance(geometry: Geometry, model: str) -> Value:
    square = geometry.norms.get(model)
    return None if square is None else _ratio(math.sqrt(square), math.sqrt(geometry.origin))


def _cosine(geometry: Geometry, pair: tuple[str, str]) -> Value:
    """None where one of the two did not move."""
    i, j = pair
    if pair not in geometry.dots:
        return None
    return _ratio(geometry.dots[pair], math.sqrt(geometry.norms[i] * geometry.norms[j]))


def _conflicts(geometry: Geometry, pair: tuple[str, str]) -> Value:
    return _ratio(geometry.opposed.get(pair, 0), geometry.both.get(pair, 0))


def _apart(geometry: Geometry, pair: tuple[str, str]) -> Value:
    if pair not in geometry.dots:
        return None
    i, j = pair
    square = geometry.norms[i] + geometry.norms[j] - 2 * geometry.dots[pair]
    return _ratio(math.sqrt(max(0.0, square)), math.sqrt(geometry.origin))


def _ratio(part: float, whole: float) -> Value:
    return part / whole if whole > 0 else None
