"""The pictures of the page as numbers of SVG and tables: steps, the map of numbers, and two splits."""

from collections.abc import Sequence

from attrs import frozen

from modelmerger_plugins.tune.report import Judged, TuneReport

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 220, 52, 34, 12
SHADES = 4


@frozen
class Line:
    """A series of a picture."""

    name: str
    """What it shows."""
    points: str
    """`x,y x,y`."""


@frozen
class Steps:
    """The objective and the splits by step."""

    lines: Sequence[Line]
    """The objective first."""
    low: float
    """At the lower end of the axis."""
    high: float
    """At the upper end."""
    rows: Sequence[tuple[str, Sequence[float]]]
    """The numbers: the step, and each line."""


def steps(report: TuneReport) -> Steps:
    """How the objective and each split went on the lines that were tuned on."""
    splits = list(report.trials[0].losses)
    series = {"objective": [trial.value for trial in report.trials]}
    start = report.trials[0].losses
    if len(splits) > 1:
        series |= {f"{s}, change of loss": [trial.losses[s] / start[s] - 1 for trial in report.trials] for s in splits}
    values = [value for own in series.values() for value in own]
    low, high = min(values), max(values)
    high = high if high > low else low + 1
    lines = [Line(name, _path([(i, v) for i, v in enumerate(own)], low, high)) for name, own in series.items()]
    rows = [(str(t.number), [own[i] for own in series.values()]) for i, t in enumerate(report.trials)]
    return Steps(lines, low, high, rows)


def _path(points: Sequence[tuple[int, float]], low: float, high: float) -> str:
    most = max(1, points[-1][0])
    across, up = WIDTH - LEFT - 10, HEIGHT - TOP - BOTTOM
    return " ".join(f"{LEFT + across * i / most:.1f},{TOP + up * (high - v) / (high - low):.1f}" for i, v in points)


@frozen
class Heat:
    """Numbers by group and mark."""

    marks: Sequence[str]
    """The columns."""
    rows: Sequence[tuple[str, Sequence[tuple[str, int]]]]
    """Group → value and shade of each column."""


def heat(report: TuneReport) -> Heat:
    """The numbers that were found, shaded by where they lie between the smallest and the largest."""
    marks = list(report.per)
    cells: dict[str, dict[str, float]] = {}
    for name, value in zip(report.coordinates, report.best.vector, strict=True):
        mark, _, group = name.partition(": ")
        cells.setdefault(group or "all tensors", {})[mark] = value
    low, high = min(report.best.vector), max(report.best.vector)
    span = high - low or 1.0

    def cell(value: float | None) -> tuple[str, int]:
        return ("", 0) if value is None else (f"{value:.3f}", round(SHADES * (value - low) / span))

    return Heat(marks, [(group, [cell(own.get(mark)) for mark in marks]) for group, own in cells.items()])


@frozen
class Scatter:
    """Models by the gaps of two splits."""

    across: str
    """The split of the horizontal axis."""
    up: str
    """The split of the vertical axis."""
    points: Sequence[tuple[str, float, float, float, float]]
    """Name, place in the picture, and both gaps."""


def scatter(report: TuneReport) -> Scatter | None:
    """The two splits that differ most between the models; None where there are fewer than two."""
    splits = list(report.judged[0].gaps) if report.judged else []
    if len(splits) < 2:
        return None

    def spread(split: str) -> float:
        return max(one.gaps[split] for one in report.judged) - min(one.gaps[split] for one in report.judged)

    across, up = sorted(splits, key=spread)[-2:]
    xs, ys = _placed(report.judged, across, LEFT, WIDTH - 60), _placed(report.judged, up, HEIGHT - BOTTOM, TOP + 6)
    rows = zip(report.judged, xs, ys, strict=True)
    return Scatter(across, up, [(one.name, x, y, one.gaps[across], one.gaps[up]) for one, x, y in rows])


def _placed(judged: Sequence[Judged], split: str, first: float, last: float) -> list[float]:
    values = [one.gaps[split] for one in judged]
    low, span = min(values), (max(values) - min(values)) or 1.0
    return [round(first + (last - first) * (value - low) / span, 1) for value in values]
