"""The figures of one merge by all contenders, and what follows from them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from measure import Measurement

Quantity = Callable[[Measurement], float]

QUANTITIES: dict[str, Quantity] = {
    "wall": lambda run: run.wall,
    "cpu": lambda run: run.cpu,
    "peak_resident": lambda run: run.peak_resident,
    "peak_anonymous": lambda run: run.peak_anonymous,
    "storage_read": lambda run: run.storage_read,
    "storage_written": lambda run: run.storage_written,
    "others": lambda run: run.others,
    "unsynced": lambda run: run.unsynced,
}
COMPARED = ("wall", "cpu", "peak_resident")


@dataclass
class Result:
    """`runs[contender][i]` is from round i for every contender, so that rounds can be compared pair by pair.

    A contender that failed once is in `failures`, not in `runs`.
    """

    name: str
    shape: str
    strategy: str
    models: int
    input_bytes: int
    output_bytes: int
    runs: dict[str, list[Measurement]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    agreements: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Of ties: the share of elements that are as modelmerger's, of those where no magnitude equals its threshold, and
    the share of these."""

    def median(self, contender: str, quantity: str) -> float:
        return median(QUANTITIES[quantity](run) for run in self.runs[contender])

    def spread(self, contender: str, quantity: str) -> tuple[float, float]:
        values = [QUANTITIES[quantity](run) for run in self.runs[contender]]
        return min(values), max(values)

    @property
    def reference(self) -> str | None:
        """The contender that the others are divided by: the first that did not fail."""
        return next(iter(self.runs), None)

    def ratio(self, contender: str, quantity: str) -> float | None:
        """Median over the rounds of this contender's figure divided by the reference's in the same round."""
        if self.reference is None:
            return None
        measure = QUANTITIES[quantity]
        pairs = list(zip(self.runs[contender], self.runs[self.reference], strict=True))
        if any(measure(other) == 0 for _, other in pairs):
            return None
        return median(measure(run) / measure(other) for run, other in pairs)

    def largest_share_read(self) -> float:
        """Largest part of the inputs that any run fetched from the device: near 0 when the page cache held them."""
        return max((run.storage_read / self.input_bytes for runs in self.runs.values() for run in runs), default=0.0)

    def largest_disturbance(self) -> float:
        """Most cores that anything else than the contender kept busy, on average over a run."""
        return max((run.others / run.wall for runs in self.runs.values() for run in runs), default=0.0)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "shape": self.shape,
            "strategy": self.strategy,
            "models": self.models,
            "input_bytes": self.input_bytes,
            "output_bytes": self.output_bytes,
            "failures": self.failures,
            "agreements": self.agreements,
            "reference": self.reference,
            "medians": {c: {q: self.median(c, q) for q in QUANTITIES} for c in self.runs},
            "ratios_to_reference": {c: {q: self.ratio(c, q) for q in COMPARED} for c in self.runs},
            "rounds": {c: [as_json(run) for run in runs] for c, runs in self.runs.items()},
        }


def as_json(run: Measurement) -> dict[str, float]:
    return {"user": run.user, "system": run.system, **{name: measure(run) for name, measure in QUANTITIES.items()}}
