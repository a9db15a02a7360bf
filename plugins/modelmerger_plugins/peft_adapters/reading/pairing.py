"""An adapter and the base that it is read against: the shapes of both, and the scale of a module."""

import reprlib
from typing import Any

from attrs import frozen
from modelmerger import DTYPES, Checkpoint, shown

from modelmerger_plugins.peft_adapters.reading.config import AdapterConfig
from modelmerger_plugins.peft_adapters.reading.modules import MisfitError

Shape = tuple[int, ...]


@frozen(eq=False)
class Pairing:
    """An adapter and its base. No weights are read."""

    config: AdapterConfig
    """What the adapter says of itself."""
    adapter: Checkpoint
    """Its tensors."""
    base: Checkpoint
    """The tensors that it changes."""

    def shape(self, key: str) -> Shape:
        """Of a tensor of the adapter."""
        return self.adapter.tensors[key].shape

    def elements(self, key: str) -> int:
        """How many numbers a tensor of the adapter has."""
        return self.adapter.tensors[key].elements

    def shape_in_base(self, tensor: str) -> Shape:
        """Of a tensor of the base.

        Raises `MisfitError` where the base has none of that name, or one that cannot be changed.
        """
        info = self.base.tensors.get(tensor)
        if info is None:
            if tied := self.base.aliases.get(tensor):
                raise MisfitError(f"changes {tensor}, which '{self.base.name}' ties to {tied}: untie the base first")
            raise MisfitError(f"matches nothing: '{self.base.name}' has no tensor {shown(tensor)}")
        if DTYPES[info.dtype].family != "float":
            raise MisfitError(f"changes a tensor that is {info.dtype} in '{self.base.name}': dequantise the base first")
        return info.shape

    def scale(self, module: str, rank: int, other: int) -> float:
        """What the product of a module's factors is multiplied by. `rank`, `other`: the ranks of its two factors.

        Raises `MisfitError` where these differ from each other or from the adapter's config, or are 0.
        """
        wanted: Any = self.config.rank(module)
        if rank != other or rank != wanted:
            said = f"has rank {rank if rank == other else [rank, other]}"
            raise MisfitError(f"{said}, and the adapter's config says {reprlib.repr(wanted)}")
        if rank < 1:
            raise MisfitError(f"has rank {rank}, and so has the adapter's config, where 1 at least is due")
        return self.config.scale(module, rank)
