"""From coarse to fine: which numbers move together, and for how many steps.

A number a model is what lines say most surely, and the best of these is one of the points that a number a tensor can
reach. So a search for the finer numbers begins there, in place of finding each tensor's number by itself, and few steps
hold them near it (early stopping: Yao, Rosasco and Caponnetto 2007, doi:10.1007/s00365-006-0663-2).
"""

from collections.abc import Sequence

import numpy as np
from attrs import field, frozen

from modelmerger_plugins.tune.coordinates import Coordinate, Space, group_of
from modelmerger_plugins.tune.section import Per

_LEVELS: Sequence[Per] = ("model", "layer", "tensor")


@frozen(eq=False)
class Stage:
    """Steps in which the numbers of a group are moved as one."""

    groups: np.ndarray
    """The number of the group of each coordinate: (coordinates,), counted from 0 in the order of the coordinates."""
    steps: int
    """How many."""
    firsts: np.ndarray = field(init=False)
    """The first coordinate of each group: (groups,)."""

    @firsts.default
    def _first_of_each(self) -> np.ndarray:
        return np.unique(self.groups, return_index=True)[1]

    def gathered(self, slopes: np.ndarray) -> np.ndarray:
        """The derivatives for the numbers of the groups: (groups,). slopes: those of the coordinates."""
        return np.bincount(self.groups, slopes)


def stages(space: Space, steps: int) -> list[Stage]:
    """The stages of a search, the coarsest first. Each has half of the steps that are left, and the last one the rest.

    A granularity that makes the same groups as the one before is left out, and so is one that no step is left for.
    """
    levels: list[np.ndarray] = []
    for per in _LEVELS:
        groups = _numbered([_place(coordinate, per) for coordinate in space.coordinates])
        if not levels or (groups != levels[-1]).any():
            levels.append(groups)
    found = []
    for number, groups in enumerate(levels):
        own = steps if number == len(levels) - 1 else -(-steps // 2)
        steps -= own
        if own:
            found.append(Stage(groups, own))
    return found


def _place(coordinate: Coordinate, per: Per) -> tuple[int, str]:
    """What a coordinate moves with: numbers that are coarser already are one each."""
    name = coordinate.tensors[0] if coordinate.tensors else ""
    return coordinate.mark, group_of(name, per) if coordinate.group else ""


def _numbered(places: Sequence[tuple[int, str]]) -> np.ndarray:
    numbers: dict[tuple[int, str], int] = {}
    return np.array([numbers.setdefault(place, len(numbers)) for place in places])
