"""What comes of merging what models change of their base, in place of the models."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from attrs import field, frozen

from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import Problem
from modelmerger.values.plan import WHOLE_MODEL

Gram = Callable[[], Sequence[Sequence[float]]]
"""Makes the Gram matrix of one tensor's updates, one row a model."""


class Coefficients(Protocol):
    """The strategy, as it acts on updates: a merged update is Σ cᵢ·updateᵢ, and these are the cᵢ."""

    @property
    def kept(self) -> frozenset[str]:
        """Tensors of the base that options keep from being merged, whose updates are left out."""

    @property
    def notes(self) -> Sequence[Problem]:
        """What is to be said of weights and options."""

    def __call__(self, tensor: str, shape: Sequence[int], gram: Gram) -> tuple[float, ...]:
        """One number a model, for a tensor of the base and its shape. `gram` is called where the strategy asks for it.

        Raises `ConfigError` for weights that make no sense, `NumericError` where the result is undefined.
        """


@frozen(eq=False)
class MergedUpdates:
    """What a plugin made of models that change a base."""

    checkpoint: Checkpoint
    """The result, whose tensors are written as they are read."""
    dtypes: Mapping[str, str]
    """The dtype that each of its tensors is written in."""
    writes: str = WHOLE_MODEL
    """What that is, in a word: a whole model, or what belongs to one ("adapter"). Only a whole model has a config."""
    stem: str = "model"
    """What the files of weights are named by."""
    sharded: bool = True
    """Whether the weights may be written in several files."""
    documents: Mapping[str, bytes] = field(factory=dict)
    """Files that the result consists of beside its weights, by name."""
    relative_errors: Mapping[str, float] = field(factory=dict)
    """Changed tensor of the base → ‖written − exact‖/‖exact‖ of its update."""
    relative_error: float = 0.0
    """That of all updates together."""
    memory: int = 0
    """Bytes that are held at a time while it is read, by one worker."""
    notes: Sequence[Problem] = ()
    """What the user should know of it."""
