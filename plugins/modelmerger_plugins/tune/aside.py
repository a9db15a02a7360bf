"""What else a report shows: the line from the base through the start, and what groups of numbers are worth."""

from collections.abc import Callable, Sequence

from attrs import frozen
from modelmerger import layer_of

from modelmerger_plugins.tune.coordinates import Space

FACTORS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
"""How many times as long as at the start the update of the base is."""
MOST = 16
"""Groups that are put back to the start, one after the other."""
Measure = Callable[[Sequence[float]], float]
"""A vector of numbers → the objective, on the lines that are tuned on."""


@frozen
class Valued:
    """A name and a number."""

    name: str
    """What it is about."""
    value: float
    """The objective, or what it loses."""


def line(measure: Callable[[float], float]) -> list[Valued]:
    """The objective at each factor: of θ_base + factor·(θ_start − θ_base)."""
    return [Valued(f"{factor:g} × start", measure(factor)) for factor in FACTORS]


def worth(space: Space, best: Sequence[float], value: float, measure: Measure) -> list[Valued]:
    """What the objective loses where the numbers of a group are put back to the start: of a layer, or of a mark.

    value: the objective of the best.
    """
    found = []
    for name, members in groups_of(space).items():
        back = [space.start[i] if i in members else one for i, one in enumerate(best)]
        if back != list(best):
            found.append(Valued(name, measure(back) - value))
    return found


def groups_of(space: Space) -> dict[str, set[int]]:
    """The groups that are put back, and the numbers of their coordinates: `MOST` of them at most."""
    groups: dict[str, set[int]] = {}
    for number, coordinate in enumerate(space.coordinates):
        groups.setdefault(_group(space, coordinate.mark, coordinate.group), set()).add(number)
    names = list(groups)
    together = -(-len(names) // MOST)
    found = {}
    for at in range(0, len(names), max(1, together)):
        own = names[at : at + together]
        name = own[0] if len(own) == 1 else f"{own[0]} to {own[-1]}"
        found[name] = {number for one in own for number in groups[one]}
    return found


def _group(space: Space, mark: int, group: str) -> str:
    layer = layer_of(group)
    if layer is not None:
        return f"{layer[0]}.{layer[1]}"
    return group or space.marks[mark].where
