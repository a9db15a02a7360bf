"""What a call of a search asks for beside its config."""

from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

Objective = Callable[[Any, Any], float | Sequence[float]]
"""What is made small in place of the config's objective: of the merged model and its tokenizer, a number or several."""
Progress = Callable[[int, int, float], None]
"""Told of steps done, steps in all, and the objective."""
Preparing = Callable[[int, int], None]
"""Told of tensors that are split into terms, and of how many there are to be split."""


@frozen
class Asked:
    """How one search is run."""

    objective: Objective | None
    """A function of the user's; None for the config's objective."""
    progress: Progress
    """Who is told."""
    jobs: int = 1
    """How many vectors are measured at a time, where vectors are only tried."""
    choose: int | None = None
    """The step whose numbers are taken; None for the best."""
    preparing: Preparing | None = None
    """Who is told before the first step, where the merge is split into terms first."""
