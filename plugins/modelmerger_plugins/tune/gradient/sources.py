"""Where the numbers of a merged tensor come from: the same tensor of each model, read in pieces."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from attrs import field, frozen
from modelmerger import Checkpoint, MergePlan, read_elements

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

PIECE = 1 << 20
"""Elements that are read at a time, those of all models together: few enough for the processor's cache."""


@frozen(eq=False)
class Source:
    """A tensor that is a linear combination of tensors of the models.

    Its coefficients are a vector of float64: one for each model but the last input, which the others are compared with,
    and then the sum of the coefficients of all inputs.
    """

    name: str
    """In the merged model."""
    shape: tuple[int, ...]
    """Of the tensor."""
    inputs: Sequence[tuple[Checkpoint, str]]
    """The tensors that it is made of; the base is the last, where there is one."""
    dtype: "torch.dtype"
    """Of the arithmetic."""
    device: "torch.device" = field(repr=False)
    """Where the arithmetic is done."""

    @classmethod
    def all_of(
        cls,
        plan: MergePlan,
        inputs: Mapping[str, Sequence[int]],
        checkpoints: Sequence[Checkpoint],
        dtype: "torch.dtype",
        device: "torch.device",
    ) -> "dict[str, Source]":
        """Of each tensor of a plan, by its name. inputs: the checkpoints that it is made of, the base last."""
        return {
            tensor.name: cls(
                tensor.name,
                tensor.shape,
                [(checkpoints[i], tensor.name_in(i)) for i in inputs[tensor.name]],
                dtype,
                device,
            )
            for tensor in plan.tensors
        }

    @property
    def size(self) -> int:
        """How many coefficients it has."""
        return len(self.inputs)

    def alone(self, model: int) -> "np.ndarray":
        """The coefficients with which it is that of one model, by its number; of the last one if it has no other."""
        import numpy as np

        found = np.zeros(self.size)
        found[-1] = 1.0
        if model < len(self.inputs) - 1:
            found[model] = 1.0
        return found

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    def room(self, start: int, stop: int) -> "Tensor":
        """Room for the largest piece of these elements, which all pieces use: (inputs, elements)."""
        import torch

        longest = max((last - first for first, last in self.pieces(start, stop)), default=0)
        return torch.empty((len(self.inputs), longest), dtype=self.dtype, device=self.device)

    def read(self, start: int, stop: int, room: "Tensor", which: Sequence[int] | None = None) -> "Tensor":
        """Elements `start` to `stop`: (inputs, elements), differences from the last input, and that itself last.

        room: where they are put; it may be larger. which: those of the differences that are read; None for all of them.
        """
        *models, last = self.inputs
        inputs = [*models, last] if which is None else [*(models[i] for i in which), last]
        rows = room[: len(inputs), : stop - start]
        for row, (checkpoint, name) in zip(rows, inputs, strict=True):
            row.copy_(read_elements(checkpoint, name, start, stop))
        rows[:-1] -= rows[-1]
        return rows

    def pieces(self, start: int, stop: int) -> Sequence[tuple[int, int]]:
        """Ranges of elements that are read one after the other."""
        length = max(1, PIECE // len(self.inputs))
        return [(at, min(at + length, stop)) for at in range(start, stop, length)]

    def merged(self, coefficients: "Tensor", start: int, stop: int) -> "Tensor":
        """Elements `start` to `stop` of the merged tensor, as a vector."""
        import torch

        out = torch.empty(stop - start, dtype=self.dtype, device=self.device)
        counted = [i for i, coefficient in enumerate(coefficients[:-1].tolist()) if coefficient]
        factors = coefficients[[*counted, -1]].to(self.device, self.dtype)
        room = self.room(start, stop)
        for first, last in self.pieces(start, stop):
            torch.mv(self.read(first, last, room, counted).T, factors, out=out[first - start : last - start])
        return out

    def products(self, gradient: "Tensor", start: int, stop: int) -> "Tensor":
        """The derivatives for the coefficients, float64, given that for elements `start` to `stop`, a vector."""
        import torch

        sums = torch.zeros(len(self.inputs), dtype=torch.float64)
        flat = gradient.reshape(-1).to(self.device, self.dtype)
        room = self.room(start, stop)
        for first, last in self.pieces(start, stop):
            sums += torch.mv(self.read(first, last, room), flat[first - start : last - start]).double().cpu()
        return sums
