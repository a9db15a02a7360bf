"""What makes a checkpoint hand out its tensors by name, as a mapping does."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from modelmerger.inputs.elements import read_elements

if TYPE_CHECKING:
    from torch import Tensor


class HandsOut(Mapping[str, "Tensor"]):
    """Tensors that are read whole when they are asked for: `merged["w"]`, `dict(merged)`.

    Each is in memory of its own, on the CPU, in the stored dtype. For a class that derives from `Checkpoint` too.
    """

    __slots__ = ()

    def __getitem__(self, name: str) -> "Tensor":
        checkpoint = cast("Any", self)
        info = checkpoint.tensors[name]
        return read_elements(checkpoint, name, 0, info.elements).view(info.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(cast("Any", self).tensors)

    def __len__(self) -> int:
        return len(cast("Any", self).tensors)

    def __contains__(self, name: object) -> bool:
        return name in cast("Any", self).tensors

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)
