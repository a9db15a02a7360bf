"""`tune.html`: a page about a search. One file, which runs nothing and loads nothing."""

from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from modelmerger_plugins.pages.plots import Plot, Series, plot
from modelmerger_plugins.pages.rendering import render as fill
from modelmerger_plugins.tune.report import TuneReport

PAGE = "tune.html"
SHADES = 4


def render(report: TuneReport) -> bytes:
    """The page. Equal reports give equal bytes."""
    against = _against(report)
    pictures = [_steps(report), *([_factors(report)] if report.line else [])]
    worth = [_worth(report)] if len(report.worth) > 1 else []
    return fill(
        Path(__file__).parent / "page.html.j2",
        report=report,
        pictures=[*pictures, *worth],
        heat=heat(report),
        against=against,
        front=_front(report),
    )


def _steps(report: TuneReport) -> Plot:
    test = next((one for one in report.judged if one.name == "tuned"), None)
    places = [str(trial.number) for trial in report.trials] + (["test"] if test else [])
    behind = [None] if test else []
    values = [None if trial.dropped else trial.value for trial in report.trials]
    series = [Series("objective", [*values, *([test.value] if test else [])], dashed=True)]
    start = report.trials[0].losses
    for split in start if len(start) > 1 else ():
        changes = [None if trial.dropped else trial.losses[split] / start[split] - 1 for trial in report.trials]
        series.append(Series(f"{split}: change of the loss", [*changes, *behind]))
    text = "The objective and each split on the lines that were tuned on; the objective on test lines at the end."
    return plot("Step by step", text, places, series, axis="step")


def _factors(report: TuneReport) -> Plot:
    text = f"The objective on tuning lines where all that the start changes of the base is multiplied: {report.factor}."
    tuned = report.best.value, "tuned"
    values = Series("objective", [one.value for one in report.line])
    return plot("The line of λ", text, [one.name for one in report.line], [values], reference=tuned, axis="factor")


def _worth(report: TuneReport) -> Plot:
    text = "What the objective on tuning lines loses where the numbers of a group are put back to the start."
    values = Series("loss of the objective", [one.value for one in report.worth])
    return plot("What each group is worth", text, [one.name for one in report.worth], [values], axis="group")


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
class Against:
    """Models by the gaps of two splits."""

    across: str
    """The split of the horizontal axis."""
    up: str
    """The split of the vertical axis."""
    points: Sequence[tuple[str, float, float, float, float]]
    """Name, place in the picture, and both gaps."""


def _against(report: TuneReport) -> Against | None:
    """The two splits that differ most between the models; None where there are fewer than two."""
    splits = list(report.judged[0].gaps) if report.judged else []
    if len(splits) < 2:
        return None
    gaps = {split: [one.gaps[split] for one in report.judged] for split in splits}
    across, up = sorted(splits, key=lambda split: max(gaps[split]) - min(gaps[split]))[-2:]
    xs, ys = _placed(gaps[across], 46, 280), _placed(gaps[up], 180, 16)
    names = [one.name for one in report.judged]
    return Against(across, up, list(zip(names, xs, ys, gaps[across], gaps[up], strict=True)))


@frozen
class Front:
    """Trials by two objectives."""

    across: str
    """The objective of the horizontal axis."""
    up: str
    """The objective of the vertical axis."""
    points: Sequence[tuple[str, float, float, bool]]
    """Number of the trial, place in the picture, and whether no other one beats it."""


def _front(report: TuneReport) -> Front | None:
    """The first two objectives of all trials; None where there is one objective."""
    if not report.pareto:
        return None
    whole = [trial for trial in report.trials if not trial.dropped]
    xs = _placed([trial.values[0] for trial in whole], 46, 330)
    ys = _placed([trial.values[1] for trial in whole], 180, 16)
    unbeaten = {trial.number for trial in report.pareto}
    points = [(str(t.number), x, y, t.number in unbeaten) for t, x, y in zip(whole, xs, ys, strict=True)]
    return Front(report.objectives[0], report.objectives[1], points)


def _placed(values: Sequence[float], first: float, last: float) -> list[float]:
    low, span = min(values), (max(values) - min(values)) or 1.0
    return [round(first + (last - first) * (value - low) / span, 1) for value in values]
