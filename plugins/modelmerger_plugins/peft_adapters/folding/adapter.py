"""The tensors of one adapter, read as they are needed and checked for NaN and infinity."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import field, frozen
from modelmerger import Checkpoint, NumericError, Problem, amount, read_elements

from modelmerger_plugins.peft_adapters.changes.change import Change
from modelmerger_plugins.peft_adapters.reading.config import AdapterConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor

KEPT = 16
"""Tensors of an adapter that are kept at a time: those of the layers that workers are in."""


@frozen(eq=False)
class Adapter:
    """One adapter, read against its base. Safe from several threads."""

    stored: Checkpoint
    """Its tensors."""
    changes: Mapping[str, Sequence[Change]]
    """Base tensor → what is done to it, in order."""
    allow_nonfinite: bool
    """Whether NaN and infinity may pass."""
    config: AdapterConfig | None = None
    """Its adapter_config.json; None for an adapter that has no files, such as a merged one."""
    _kept: "OrderedDict[tuple[str, torch.dtype], Tensor]" = field(factory=OrderedDict, repr=False)
    """The tensors that were asked for last, by key and dtype."""
    _lock: threading.Lock = field(factory=threading.Lock, repr=False)
    """Held while these are looked at."""

    def tensor(self, key: str, dtype: "torch.dtype") -> "Tensor":
        """A tensor of the adapter in its shape, kept for the next call. Raises `NumericError` as `elements` does."""
        with self._lock:
            if (found := self._kept.get((key, dtype))) is None:
                info = self.stored.tensors[key]
                found = self.elements(key, 0, info.elements, dtype).view(info.shape)
                self._kept[key, dtype] = found
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end((key, dtype))
            return found

    def finite(self, key: str, dtype: "torch.dtype") -> "Tensor":
        """The same, not kept. Raises `NumericError` for any NaN or infinity, whatever the options say."""
        info = self.stored.tensors[key]
        values = read_elements(self.stored, key, 0, info.elements).to(dtype).view(info.shape)
        if not values.isfinite().all():
            raise NumericError(self._nonfinite(key, values, "Repair it: factors with such numbers cannot be merged"))
        return values

    def elements(self, key: str, start: int, stop: int, dtype: "torch.dtype") -> "Tensor":
        """Elements of the flattened tensor, for one that is too large to be kept.

        Raises `NumericError` where they hold a NaN or an infinity that may not pass.
        """
        values = read_elements(self.stored, key, start, stop).to(dtype)
        if not self.allow_nonfinite and not values.isfinite().all():
            advice = "Repair it, or set allow_nonfinite: true to let them through"
            raise NumericError(self._nonfinite(key, values, advice))
        return values

    def _nonfinite(self, key: str, values: "Tensor", advice: str) -> Problem:
        nans, infinities = int(values.isnan().sum()), int(values.isinf().sum())
        counts = [amount(nans, "NaN")] * bool(nans) + [amount(infinities, "infinity", "infinities")] * bool(infinities)
        return Problem(f"the adapter holds {' and '.join(counts)}. {advice}.", self.stored.place, key)
