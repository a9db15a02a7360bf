"""An adapter and the base that it is read against: the shapes of both, and the scale of a module."""

import reprlib
from collections.abc import Mapping
from typing import Any

from attrs import frozen
from modelmerger import Checkpoint, is_embedding, is_head

from modelmerger_plugins.peft_adapters.reading import unfit_bases
from modelmerger_plugins.peft_adapters.reading.config import AdapterConfig
from modelmerger_plugins.peft_adapters.reading.misfits import MisfitError

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
    base_key: str
    """The key of the merge's config by which a base is given, for messages."""
    untie_key: str
    """The key by which matrices that the base ties become two; empty where there is no such way."""
    aliases: Mapping[str, str]
    """Tensors that the base leaves out → the one that they are tied to."""
    names: Mapping[str, str]
    """Tensor, or layer with experts, in memory → the same in the base's file, for those that are found there."""

    def in_base(self, tensor: str) -> str:
        """What the base's file calls a tensor of the model in memory; the same name where it is not found there."""
        if (found := self.names.get(tensor)) is not None:
            return found
        module, _, name = tensor.rpartition(".")
        weight = self.names.get(f"{module}.weight", "")
        return f"{weight.removesuffix('.weight')}.{name}" if weight.endswith(".weight") else tensor

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
        if unfit_bases.is_quantised(self.base, tensor):
            raise unfit_bases.quantised(self.base, self.base_key)
        info = self.base.tensors.get(tensor)
        if info is None and (tied := self.aliases.get(tensor)):
            untie_key = self.untie_key if tensor in self.base.aliases else ""
            raise unfit_bases.tied(self.base, tensor, tied, self.base_key, untie_key)
        if info is None:
            raise unfit_bases.missing(self.config, self.base, tensor, self.base_key)
        if info.shape == (0,):
            raise unfit_bases.ungathered(self.base)
        return info.shape

    def other_shape(self, tensor: str, wanted: Shape, sentence: str) -> MisfitError:
        """The misfit of what is for another shape than the base's tensor has: `wanted`, as `sentence` says it."""
        there = self.shape_in_base(tensor)
        resized = is_embedding(tensor) or is_head(tensor)
        if resized and len(there) == len(wanted) == 2 and there[1] == wanted[1] and there[0] != wanted[0]:
            return unfit_bases.vocabulary(self.base, there[0], wanted[0], self.base_key)
        if unfit_bases.is_head_of_task(tensor) and there[1:] == wanted[1:]:
            return unfit_bases.labels(self.base, there[0], wanted[0], self.base_key)
        return MisfitError(f"{sentence}, and '{self.base.name}' has {list(there)}", "shape", unfit_bases.RIGHT)

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
