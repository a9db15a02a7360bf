"""What trying a merge out on a few slices has shown, and what the whole merge will take by that."""

from typing import Any

from attrs import asdict, evolve, frozen

from modelmerger.values.plan import MergePlan

MARGIN = 1.08
"""What is planned, as a multiple of what a trial makes expect: no two runs take the very same memory."""
MARGIN_WHOLE = 1.13
"""The same where tensors are merged whole: how many workers are at their peaks at once is chance."""


@frozen(kw_only=True)
class Trial:
    """Memory in resident bytes, time in seconds."""

    highest: int
    """The peak of the process until its models were open, the merge was planned and torch was there."""
    process: int
    """What it held then."""
    workers: int
    """What all workers add at their peak."""
    statistics: int
    """What is measured of tensors and held until they are merged, at most."""
    computing: float
    """Reading and merging everything, for one worker."""

    def as_dict(self) -> dict[str, Any]:
        """The trial as plain data."""
        return asdict(self)


def with_trial(plan: MergePlan, trial: Trial) -> MergePlan:
    """The plan with the memory that the trial makes expect. Its digest is the same."""
    moving = {part: size for part, size in plan.memory_parts.items() if part in ("reading", "kept", "writing")}
    expected = max(trial.highest, trial.process + trial.workers + trial.statistics + sum(moving.values()))
    whole = any(tensor.granularity == "whole" for tensor in plan.tensors)
    memory = int((MARGIN_WHOLE if whole else MARGIN) * expected)
    parts = {"process": trial.process, "workers": trial.workers, "statistics": trial.statistics, **moving}
    return evolve(plan, memory=memory, memory_parts=parts | {"reserve": memory - sum(parts.values())}, tried=True)
