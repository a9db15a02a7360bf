"""A base model with adapters folded in, as a checkpoint: tensors that they change are made when they are read."""

import threading
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from attrs import evolve, field, frozen
from modelmerger import Apart, Base, Checkpoint, Donor, FileIdentity, Problem, TensorInfo

from modelmerger_plugins.peft_adapters.changes.low_rank import LowRank
from modelmerger_plugins.peft_adapters.folding.adapter import Adapter
from modelmerger_plugins.peft_adapters.folding.matrix import Matrix, Step


@frozen(eq=False, repr=False)
class Folded(Checkpoint):
    """The base with the changes of some adapters, one after the other.

    What no adapter changes is the base's own, bit for bit.
    """

    name: str
    """What messages call it."""
    base: Base
    """The model that the adapters change."""
    adapters: Sequence[Adapter]
    """In the order in which they are folded in."""
    files: tuple[FileIdentity, ...]
    """Those of the adapters and of the base."""
    donor: Donor
    """The adapter's directory, with the base's config.json."""
    wide: bool
    """Whether changed tensors are computed and given in float64 whatever the base stores; else in float32 at least."""
    notes: Sequence[Problem] = ()
    """What the user should know of the adapters."""
    aliases: Mapping[str, str] = field(init=False)
    """Those of the base."""
    _changed: Mapping[str, Matrix] = field(init=False, repr=False)
    """What makes the tensors that change."""
    tensors: Mapping[str, TensorInfo] = field(init=False)
    """Those of the base, in the dtype that they are given in."""

    @aliases.default
    def _aliases(self) -> Mapping[str, str]:
        return self.base.checkpoint.aliases

    @_changed.default
    def _matrices(self) -> Mapping[str, Matrix]:
        changed = {tensor: None for adapter in self.adapters for tensor in adapter.changes}
        base, last_blocks = self.base.checkpoint, threading.local()
        return {name: Matrix(base, name, self.steps(name), self.wide, last_blocks) for name in changed}

    @tensors.default
    def _tensors(self) -> Mapping[str, TensorInfo]:
        stored = self.base.checkpoint.tensors
        return {name: self._changed[name].info if name in self._changed else info for name, info in stored.items()}

    @property
    def changes(self) -> Collection[str]:  # type: ignore[override]  # the core has a field here
        """The tensors of the base that any adapter changes."""
        return self._changed.keys()

    def steps(self, tensor: str) -> Sequence[Step]:
        """What is done to a tensor of the base, in order; nothing for one that does not change."""
        return [Step(adapter, change) for adapter in self.adapters for change in adapter.changes.get(tensor, ())]

    def apart(self, tensor: str) -> Apart:
        """The base's tensor and the factors of LoRA; itself where an adapter does anything else to it."""
        steps, found = self.steps(tensor), self.base.checkpoint.apart(tensor)
        low_rank = [(step.adapter, step.change) for step in steps if isinstance(step.change, LowRank)]
        if len(low_rank) < len(steps):
            return super().apart(tensor)
        pairs = []
        for adapter, change in low_rank:
            left, right = change.factors(partial(adapter.tensor, dtype=self._changed[tensor].dtype))
            pairs.append((left * change.scale, right))
        return evolve(found, factors=[*found.factors, *pairs])

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Fills `buffer` with elements of a tensor, as `Checkpoint.read` says.

        Raises `NumericError` where the adapter holds a NaN or an infinity that may not pass.
        """
        if tensor in self._changed:
            self._changed[tensor].read(start, stop, buffer)
        else:
            self.base.checkpoint.read(tensor, start, stop, buffer)

    def prefetch(self, tensor: str, start: int, stop: int) -> None:
        """Tells the system which elements of the base will be read soon: whole blocks of rows where they change."""
        if tensor in self._changed:
            start, stop = self._changed[tensor].around(start, stop)
        self.base.checkpoint.prefetch(tensor, start, stop)
