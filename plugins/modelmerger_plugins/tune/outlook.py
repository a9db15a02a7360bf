"""What a search will take on this machine, as a value and as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import asdict, field, frozen
from modelmerger import amount, shown


@frozen
class TunePlan:
    """What a search will take."""

    method: str
    """How it searches."""
    metric: str
    """What it makes small."""
    per: Mapping[str, str]
    """The granularity of each mark, by its key in the config."""
    numbers: int
    """How many are found."""
    lines: Mapping[str, int]
    """Lines of each split to tune on."""
    test_lines: Mapping[str, int]
    """Lines of each split to test on."""
    steps: int
    """Steps of the gradient, or vectors that are tried."""
    step_seconds: float
    """What one of them takes."""
    seconds: float
    """What the search takes, with what it measures before and after its steps, and without the merge."""
    memory: int
    """Resident bytes of this process at their peak so far, a step included; torch and transformers are in it."""
    gpu_memory: int | None
    """Bytes that torch held on the GPU at the peak; None without one."""
    measured: str
    """What was done to know it."""
    notes: Sequence[str] = field(factory=tuple)
    """What the user should know."""

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data."""
        return asdict(self)

    def __str__(self) -> str:
        fineness = ", ".join(sorted(set(self.per.values())))
        on_gpu = f", and {_size(self.gpu_memory)} of the GPU" if self.gpu_memory is not None else ""
        searched = f"{self.method}, {amount(self.steps, 'step')}"
        return "\n".join(
            [
                f"search   {amount(self.numbers, 'number')} (per {fineness}) for {shown(self.metric)}, {searched}",
                f"lines    {_listed(self.lines)}",
                f"test     {_listed(self.test_lines)}",
                f"step     {_duration(self.step_seconds)} ({self.measured})",
                f"memory   {_size(self.memory)}{on_gpu} at the peak",
                f"time     about {_duration(self.seconds)}, and then the merge",
                *(f"note     {note}" for note in self.notes),
            ]
        )


def _listed(lines: Mapping[str, int]) -> str:
    return ", ".join(f"{shown(split)} {count}" for split, count in lines.items())


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
