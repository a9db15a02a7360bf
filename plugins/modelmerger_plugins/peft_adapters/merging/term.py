"""One adapter's update of one tensor, as a term of a sum of updates."""

import torch
from attrs import frozen
from torch import Tensor

from modelmerger_plugins.peft_adapters.changes.low_rank import LowRank
from modelmerger_plugins.peft_adapters.changes.of_experts import OfExperts
from modelmerger_plugins.peft_adapters.folding.adapter import Adapter


@frozen(eq=False)
class Term:
    """A low-rank update."""

    model: int
    """The number of the model that it belongs to."""
    adapter: Adapter
    """Which of the model's adapters it belongs to."""
    change: LowRank | OfExperts
    """The update."""

    @property
    def rank(self) -> int:
        """Of the update; for experts, of each."""
        experts = self.change.parameter.experts if isinstance(self.change, OfExperts) else 1
        return self.adapter.stored.tensors[self.change.a].shape[0] // experts

    @property
    def numbers(self) -> int:
        """How many numbers its factors have."""
        return sum(self.adapter.stored.tensors[key].elements for key in (self.change.a, self.change.b))

    def tensor(self, key: str) -> Tensor:
        """A tensor of the adapter, float64. Raises `NumericError` where it holds a NaN or an infinity."""
        return self.adapter.finite(key, torch.float64)
