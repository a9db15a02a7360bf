"""What a search found, and what can be said of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen
from modelmerger import MergeReport, shown

from modelmerger_plugins.tune.aside import Valued
from modelmerger_plugins.tune.honesty import Interval
from modelmerger_plugins.tune.trials import Trial

NO_BETTER = "no better than the start"


@frozen
class Judged:
    """A model on the test lines."""

    name: str
    """`start`, `tuned`, or the name of a source."""
    losses: Mapping[str, float]
    """Nats a token of each split; of another metric, its value."""
    gaps: Mapping[str, float]
    """How much worse than the best source of the split, as a share."""
    value: float
    """The objective."""
    gain: Interval | None = None
    """By how much less the tuned model comes to; None for that itself, and where lines say nothing of it."""


@frozen
class TuneReport:
    """What a search found."""

    method: str
    """How it was searched."""
    metric: str
    """What was made small."""
    coordinates: Sequence[str]
    """What each number is called."""
    per: Mapping[str, str]
    """The granularity of each mark, by its key in the config."""
    lines: Mapping[str, int]
    """Lines of each split to tune on."""
    test_lines: Mapping[str, int]
    """Lines of each split to test on."""
    trials: Sequence[Trial] = field(repr=False)
    """What was tried, the start first."""
    best: Trial = field(repr=False)
    """The numbers that were found."""
    judged: Sequence[Judged] = field(repr=False)
    """The start, the tuned model and the sources on the test lines."""
    over: float
    """The objective on the test lines less that on the lines that were tuned on: how much of the gain is fitting."""
    notes: Sequence[str]
    """What the user should know."""
    folder: str
    """Where study, tuned.yaml and the page are."""
    config: Mapping[str, Any] = field(repr=False)
    """The config with the numbers that were found."""
    texts: Mapping[str, str] = field(repr=False)
    """Digests of the lines."""
    study: str
    """The digest of the study."""
    line: Sequence[Valued] = field(factory=tuple, repr=False)
    """The objective on tuning lines where all that the start changes of the base is multiplied by a factor."""
    scale: float | str | None = None
    """λ at the start, a number or `matched`; None where it is another one for each tensor, or there is none."""
    worth: Sequence[Valued] = field(factory=tuple, repr=False)
    """What the objective on tuning lines loses where a group of numbers is put back to the start."""
    objectives: Sequence[str] = ()
    """What was made small: more than one name where there are several objectives."""
    pareto: Sequence[Trial] = field(factory=tuple, repr=False)
    """Of several objectives, the trials that no other one beats in one of them without losing in another."""
    interrupted: bool = False
    """Whether the search ended early, on a signal."""
    merged: MergeReport | None = field(default=None, repr=False)
    """The merge with these numbers; None before it."""

    @property
    def feasible(self) -> bool:
        """Whether the numbers meet all constraints, on the lines that were tuned on."""
        return self.best.excess <= 0

    @property
    def dropped(self) -> int:
        """How many vectors were dropped after some of the lines."""
        return sum(trial.dropped for trial in self.trials)

    @property
    def better(self) -> bool:
        """Whether test lines say that the tuned model is better than the start: the interval is above 0."""
        start = next((one for one in self.judged if one.name == "start"), None)
        return start is not None and start.gain is not None and start.gain.low > 0

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        start = next((one for one in self.judged if one.name == "start"), None)
        if start is None or start.gain is None:
            return "there are no intervals for this objective: judge it on other text"
        interval = f"{start.gain.value:+.4f}, from {start.gain.low:+.4f} to {start.gain.high:+.4f} by 95 %"
        if self.better:
            return f"better than the start on the test lines: the objective gains {interval}"
        return f"{NO_BETTER} on the test lines ({interval}), so keep the start"

    @property
    def factor(self) -> str:
        """Where the optimum of λ lies, in a sentence; empty where there is no base that it would be about."""
        if not self.line:
            return ""
        best = min(self.line, key=lambda one: one.value)
        times = best.name.partition(" ")[0]
        told = ""
        if isinstance(self.scale, float):
            told = f", {self.scale * float(times):g} in place of {self.scale:g}"
        elif self.scale is not None:
            told = f", a share {times} times that of '{self.scale}'"
        inside = best not in (self.line[0], self.line[-1])
        end = "" if inside else "; the optimum may lie beyond what was tried"
        return f"λ is best at {best.name}{told}: objective {best.value:.4f} on tuning lines{end}"

    def _front(self) -> list[str]:
        """The trials that no other one beats, as a table."""
        width = max(map(len, self.objectives), default=0)
        head = "  ".join(f"{shown(name):>{width}}" for name in self.objectives)
        rows = [
            f"  {one.number:>4}  "
            + "  ".join(f"{value:>{width}.4f}" for value in one.values)
            + ("  taken" if one == self.best else "")
            for one in self.pareto
        ]
        count = f"{len(self.pareto)} of {len(self.trials)}"
        return [f"pareto   {count} are beaten in all objectives by none; --choose takes one", f"  step  {head}", *rows]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "method": self.method,
            "metric": self.metric,
            "per": dict(self.per),
            "lines": dict(self.lines),
            "test_lines": dict(self.test_lines),
            "numbers": dict(zip(self.coordinates, self.best.vector, strict=True)),
            "objective": {"start": self.trials[0].value, "tuned": self.best.value},
            "objectives": list(self.objectives),
            "pareto": [{"step": one.number, "objectives": list(one.values)} for one in self.pareto],
            "step": self.best.number,
            "dropped": self.dropped,
            "feasible": self.feasible,
            "test": [
                {
                    "model": one.name,
                    "losses": dict(one.losses),
                    "gaps": dict(one.gaps),
                    "objective": one.value,
                    "gain": one.gain.as_dict() if one.gain else None,
                }
                for one in self.judged
            ],
            "line": {one.name: one.value for one in self.line},
            "scale": self.scale,
            "worth": {one.name: one.value for one in self.worth},
            "over": self.over,
            "verdict": self.verdict,
            "notes": list(self.notes),
            "steps": len(self.trials) - 1,
            "seconds": sum(trial.seconds for trial in self.trials),
            "interrupted": self.interrupted,
            "folder": self.folder,
            "study": self.study,
            "texts": dict(self.texts),
            "output": self.merged.output if self.merged is not None else None,
        }

    def __str__(self) -> str:
        splits = list(self.judged[0].losses) if self.judged else []
        width = max([8, *(len(one.name) for one in self.judged)])
        head = "  ".join(f"{shown(split, 12):>12}" for split in splits)
        rows = [
            f"  {shown(one.name):<{width}}  " + "  ".join(_cell(one, split) for split in splits) + f"  {one.value:9.4f}"
            for one in self.judged
        ]
        return "\n".join(
            [
                f"tuned    {len(self.coordinates)} numbers by {self.method}, {len(self.trials) - 1} steps",
                f"tuning   objective {self.trials[0].value:.4f} at the start, {self.best.value:.4f} tuned",
                f"  {'test':<{width}}  {head}  objective",
                *rows,
                *(self._front() if self.pareto else []),
                *([f"factor   {self.factor}"] if self.line else []),
                f"result   {self.verdict}",
                f"fitted   the objective on test lines less that on tuning lines: {self.over:+.4f}",
                *(f"note     {note}" for note in self.notes),
                f"written  {shown(self.folder)}",
            ]
        )


def _cell(one: Judged, split: str) -> str:
    gap = f" {one.gaps[split]:+.1%}" if split in one.gaps else ""
    return f"{f'{one.losses[split]:.3f}{gap}':>12}"
