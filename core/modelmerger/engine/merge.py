"""What travels together through the engine."""

from collections.abc import Sequence

import torch
from attrs import frozen

from modelmerger.hooks.assembly import Hooks
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings

CPU = torch.device("cpu")


@frozen(eq=False)
class Merge:
    """A planned merge with all that it takes to carry it out."""

    plan: MergePlan
    """What is to be made."""
    checkpoints: Sequence[Checkpoint]
    """What the plan's tensors are read from."""
    hooks: Hooks
    """The plugins of the run."""
    settings: Settings
    """Of the merge."""
    device: torch.device = CPU
    """Where slices are merged."""
