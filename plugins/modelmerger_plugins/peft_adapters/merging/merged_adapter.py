"""The merged adapter as a checkpoint: each tensor is made when it is read, from the adapters and their coefficients."""

from collections.abc import Mapping, Sequence

import torch
from attrs import field, frozen
from modelmerger import Checkpoint, Donor, FileIdentity, TensorInfo

from modelmerger_plugins.peft_adapters.merging.part import Part


@frozen(eq=False, repr=False)
class MergedAdapter(Checkpoint):
    """The parts of a merged adapter, in float64, under the names that PEFT has for them."""

    name: str
    """What messages call it."""
    parts: Sequence[Part]
    """Measured ones: their ranks and keys are known."""
    files: tuple[FileIdentity, ...]
    """Those of the adapters and their bases."""
    donor: Donor = field(factory=Donor)
    """Nobody."""
    aliases: Mapping[str, str] = field(factory=dict)
    """None."""
    _by_key: Mapping[str, Part] = field(init=False)
    """Key → the part that it belongs to."""
    tensors: Mapping[str, TensorInfo] = field(init=False)
    """By key, all float64."""

    @_by_key.default
    def _parts_by_key(self) -> Mapping[str, Part]:
        return {key: part for part in self.parts for key in part.shapes}

    @tensors.default
    def _tensors(self) -> Mapping[str, TensorInfo]:
        return {key: TensorInfo("F64", shape) for part in self.parts for key, shape in part.shapes.items()}

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Fills `buffer` with elements of a tensor, as `Checkpoint.read` says.

        Raises `NumericError` where an adapter holds a NaN or an infinity.
        """
        out = torch.frombuffer(buffer, dtype=torch.float64)
        out.copy_(self._by_key[tensor].values(tensor, start, stop))
