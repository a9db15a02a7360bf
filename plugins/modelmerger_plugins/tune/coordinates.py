"""The numbers that are found, as a vector, and what each of them is in the config."""

import glob
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen
from modelmerger import MergePlan, layer_of, precedes_layers

from modelmerger_plugins.tune.marks import Mark, Place, with_values
from modelmerger_plugins.tune.section import Per

BEARS: Mapping[str, int] = {"tensor": 100, "layer": 30, "model": 10}
"""How many lines of each split a granularity needs."""
Shares = Mapping[str, float]
"""Tensor → what its number gains when that of the mark grows by 1; 1 but between the layers of a list."""


def allowed(lines: int) -> Per:
    """The finest granularity that so many lines of each split bear."""
    return next((per for per in ("tensor", "layer") if lines >= BEARS[per]), "model")


def granularity(asked: Per, lines: int) -> Per:
    """What a number is found for: what is asked for, or the finest that the lines bear where that is coarser."""
    order: list[Per] = ["model", "layer", "tensor"]
    finest = allowed(lines)
    return finest if asked == "auto" else min(asked, finest, key=order.index)


@frozen
class Coordinate:
    """A number that is found."""

    mark: int
    """The number of its mark."""
    group: str
    """The layer or the tensor that it is for; empty where it is for all of them."""
    tensors: tuple[str, ...]
    """The tensors that it is for."""


@frozen
class Space:
    """All numbers that are found."""

    config: Mapping[str, Any] = field(repr=False)
    """The config with the marks."""
    marks: Sequence[Mark]
    """In the order of the config."""
    per: Sequence[Per]
    """The granularity of each mark."""
    shares: Sequence[Shares] = field(repr=False)
    """Those of each mark."""
    coordinates: Sequence[Coordinate] = field(repr=False)
    """In the order of marks, and of tensors within one."""

    @classmethod
    def of(
        cls, config: Mapping[str, Any], marks: Sequence[Mark], per: Sequence[Per], shares: Sequence[Shares]
    ) -> "Space":
        """The numbers of these marks."""
        found = []
        for i, (fineness, own) in enumerate(zip(per, shares, strict=True)):
            groups: dict[str, list[str]] = {}
            for name in own:
                groups.setdefault(group_of(name, fineness), []).append(name)
            if fineness == "model" and not own:
                groups = {"": []}
            found += [Coordinate(i, group, tuple(names)) for group, names in groups.items()]
        return cls(config, marks, per, shares, found)

    @property
    def start(self) -> list[float]:
        """Where the search begins, one number a coordinate."""
        return [self.marks[c.mark].start for c in self.coordinates]

    @property
    def bounds(self) -> list[tuple[float, float]]:
        """The smallest and the largest value of each coordinate."""
        return [(self.marks[c.mark].low, self.marks[c.mark].high) for c in self.coordinates]

    def names(self) -> list[str]:
        """What each coordinate is called: `models[0].weight`, `models[0].weight: model.layers.3`."""
        return [self.marks[c.mark].where + (f": {c.group}" if c.group else "") for c in self.coordinates]

    def config_at(self, vector: Sequence[float]) -> dict[str, Any]:
        """The config with these numbers, by tensor name where tensors have numbers of their own."""
        values: dict[Place, Any] = {}
        spread: dict[Place, dict[str, float]] = {}
        for coordinate, value in zip(self.coordinates, vector, strict=True):
            place = self.marks[coordinate.mark].place
            if not coordinate.group:
                values[place] = float(value)
            else:
                own = {glob.escape(name): float(value) for name in coordinate.tensors}
                spread[place] = spread.get(place, {}) | own
        config: dict[str, Any] = with_values(self.config, values | spread)
        for place, own in spread.items():
            if place != top_of(place):
                _unfold(config, place, own)
        return config


def _unfold(config: Any, place: Place, own: Mapping[str, float]) -> None:
    """Puts numbers by tensor in the place of the pattern that they were found for, in a mapping from patterns."""
    for key in place[:-1]:
        config = config[key]
    rows = list(config.items())
    config.clear()
    for key, value in rows:
        config.update(own if key == place[-1] else {key: value})


def group_of(name: str, per: Per) -> str:
    """What a tensor shares a number with, of those of its mark: its layer, or itself; empty where it is all of them."""
    if per == "model":
        return ""
    if per != "layer":
        return name
    layer = layer_of(name)
    if layer is not None:
        return f"{layer[0]}.{layer[1]}"
    return "before the layers" if precedes_layers(name) else "behind the layers"


def number_at(tensor: Any, place: Place) -> float | None:
    """The number that a planned tensor has, of those at a place of the config; None where it has none."""
    if not tensor.weights:
        return None
    if place[0] == "models" and len(place) > 2:
        i, key = int(place[1]), str(place[2])
        found = tensor.weights[i] if key == "weight" else getattr(tensor.model_options[i], key, None)
    else:
        found = getattr(tensor.options, str(place[1]), None) if place[0] == "options" and len(place) > 1 else None
    return found if isinstance(found, float) else None


def top_of(place: Place) -> Place:
    """The key of a weight or an option that a mark stands in; of a merge within the merge, the mark's own."""
    return place[:3] if place[0] == "models" and place[2] != "merge" else place[:2] if place[0] == "options" else place


def shares_of(mark: Mark, start: MergePlan, moved: MergePlan, step: float) -> dict[str, float]:
    """The shares of a mark, given the plans at the start and with its number moved by a step."""
    found = {}
    for before, after in zip(start.tensors, moved.tensors, strict=True):
        one, other = number_at(before, top_of(mark.place)), number_at(after, top_of(mark.place))
        if one is not None and other is not None and other != one:
            share = (other - one) / step
            found[before.name] = round(share, 12)
    return found
