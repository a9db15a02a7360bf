"""What a strategy is handed with a tensor, or with a slice of one."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    import torch


@frozen(eq=False, repr=False)
class Measured:
    """What a strategy is told of a tensor that it may measure, before it sees any of it."""

    tensor_name: str
    """The name of the tensor in the output."""
    shape: Sequence[int]
    """The shape of the tensor."""
    weights: Sequence[float]
    """One a model that is an input."""
    model_options: Sequence[Any]
    """One a model that is an input."""
    options: Any
    """The strategy's own, for this tensor."""

    def arguments(self) -> dict[str, Any]:
        """The arguments by name, but for that of the tensor."""
        return {
            "weights": self.weights,
            "model_options": self.model_options,
            "options": self.options,
            "shape": self.shape,
        }


@frozen(eq=False, repr=False)
class SliceInputs:
    """The arguments of a strategy for a slice that it measures or merges, as `merge_tensor` describes them."""

    tensors: Sequence["torch.Tensor"]
    """The slice of each input."""
    inputs: Sequence[int]
    """The index of each input among the config's models; the base model's index is the number of models."""
    weights: Sequence[float]
    """One a model that is an input."""
    model_options: Sequence[Any]
    """One a model that is an input."""
    options: Any
    """The strategy's own, for this tensor."""
    tensor_name: str
    """The name of the tensor in the output."""
    shape: Sequence[int]
    """The shape of the whole tensor."""
    offset: int
    """The first element of the slice in the flattened tensor."""
    random: Callable[..., "torch.Tensor"]
    """Returns random numbers for the elements, given the index of a model."""

    def arguments(self) -> dict[str, Any]:
        """The arguments by name."""
        return {
            "tensors": self.tensors,
            "inputs": self.inputs,
            "weights": self.weights,
            "model_options": self.model_options,
            "options": self.options,
            "tensor_name": self.tensor_name,
            "shape": self.shape,
            "offset": self.offset,
            "random": self.random,
        }
