"""A planned merge, as the modules of the engine hand it to each other."""

from collections.abc import Sequence

import torch
from attrs import frozen

from modelmerger.hooks.assembly import Hooks
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings

CPU = torch.device("cpu")


@frozen(eq=False, repr=False)
class Merge:
    """A planned merge with everything that it takes to carry it out."""

    plan: MergePlan
    """What the merge makes."""
    checkpoints: Sequence[Checkpoint]
    """What the plan's tensors are read from."""
    hooks: Hooks
    """The plugins of the run."""
    settings: Settings
    """Those of the merge."""
    device: torch.device = CPU
    """Where slices are merged."""
