"""Line plots as the numbers of an SVG picture: axes with round ticks, a line a series, gaps for missing values."""

import math
from collections.abc import Sequence

from attrs import frozen

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 30
MOST_LINES = 6
"""Lines that one plot can hold; a table has the others."""
Value = float | None
"""A number, or None where there is none."""


@frozen
class Series:
    """One line of a plot."""

    name: str
    """The model, or two of them."""
    values: Sequence[Value]
    """One for each place, None where there is none."""
    dashed: bool = False
    """Whether it is about the merged model."""


@frozen
class Tick:
    """A place on an axis, and what is written there."""

    at: float
    """In units of the picture."""
    text: str
    """The label of the place."""


@frozen
class Line:
    """A series as it is drawn."""

    name: str
    """That of the series."""
    shade: int
    """Which of the colours."""
    dashed: bool
    """Whether it is about the merged model."""
    paths: Sequence[str]
    """Runs of points: `x,y x,y`."""
    points: Sequence[tuple[float, float]]
    """Points that stand alone."""


@frozen
class Plot:
    """A picture and its numbers."""

    title: str
    """Above the picture."""
    explained: str
    """What is shown, in a sentence."""
    places: Sequence[str]
    """The names along the horizontal axis in order."""
    series: Sequence[Series]
    """All of them, for the table."""
    percent: bool
    """Whether values are shown as percentages."""
    lines: Sequence[Line]
    """Those of the series that are drawn."""
    across: Sequence[Tick]
    """Of the horizontal axis."""
    up: Sequence[Tick]
    """Of the vertical axis."""
    reference: Tick | None
    """Where a line with a meaning lies, and what it means."""
    left_out: int
    """How many series are not drawn."""
    axis: str = "layer"
    """What the places are."""

    def cell(self, value: float | None) -> str:
        """A value as the plot's table shows it."""
        return number(value, self.percent)

    @property
    def summary(self) -> str:
        """What somebody hears who does not see the picture."""
        parts = []
        for one in self.series:
            known = [value for value in one.values if value is not None]
            if known:
                parts.append(f"{one.name} from {self.cell(min(known))} to {self.cell(max(known))}")
        return f"{self.title}, by {self.axis}: {'; '.join(parts) or 'nothing to show'}."


def plot(
    title: str,
    explained: str,
    places: Sequence[str],
    series: Sequence[Series],
    percent: bool = False,
    reference: tuple[float, str] | None = None,
    axis: str = "layer",
) -> Plot:
    """Lines over places, which are layers unless `axis` says what they are.

    The vertical axis has the reference in it where one is given, else 0.
    """
    drawn = _drawn(series)
    known = [value for one in drawn for value in one.values if value is not None]
    known.append(reference[0] if reference else 0.0)
    ticks = round_ticks(min(known), max(known))
    low, high = ticks[0], ticks[-1]

    def x(index: int) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (index + 0.5) / len(places), 1)

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)

    lines = []
    for shade, one in enumerate(drawn):
        runs = _runs([None if v is None else (x(i), y(v)) for i, v in enumerate(one.values)])
        paths = [" ".join(f"{a:g},{b:g}" for a, b in run) for run in runs if len(run) > 1]
        lines.append(Line(one.name, shade, one.dashed, paths, [run[0] for run in runs if len(run) == 1]))
    return Plot(
        title,
        explained,
        places,
        series,
        percent,
        lines,
        [Tick(x(i), places[i]) for i in _spread(len(places))],
        [Tick(y(value), number(value, percent)) for value in ticks],
        Tick(y(reference[0]), reference[1]) if reference else None,
        len(series) - len(drawn),
        axis,
    )


def _drawn(series: Sequence[Series]) -> list[Series]:
    """Of too many, those with the lowest values: models that agree least. The merged model's line stays."""
    if len(series) <= MOST_LINES:
        return list(series)

    def mean(one: Series) -> float:
        known = [value for value in one.values if value is not None]
        return sum(known) / len(known) if known else math.inf

    merged = [one for one in series if one.dashed]
    kept = sorted((one for one in series if not one.dashed), key=mean)[: MOST_LINES - len(merged)]
    return [one for one in series if one in kept or one.dashed]


def _runs(points: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(point)
    return [run for run in runs if run]


def _spread(count: int, most: int = 6) -> list[int]:
    """The first, the last, and some evenly between them."""
    step = max(1, math.ceil((count - 1) / (most - 1)))
    inner = [i for i in range(0, count - 1, step) if count - 1 - i >= step * 0.75]
    return [*inner, count - 1]


def round_ticks(low: float, high: float) -> list[float]:
    """About four steps of 1, 2 or 5 times a power of ten that reach from below `low` to above `high`."""
    if high <= low:
        high = low + 1
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def number(value: float | None, percent: bool = False) -> str:
    """Three digits that count; a dash for no number. percent: whether it is a share that is shown as a percentage."""
    if value is None:
        return "–"
    text = f"{value * 100:.3g}" if percent else f"{value:.3g}"
    text = "0" if float(text) == 0 else text
    return (text + " %" if percent else text).replace("-", "−")
