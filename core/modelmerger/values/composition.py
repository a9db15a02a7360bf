"""A composition: a merge whose output is a checkpoint, of which each tensor is written as it is read."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from attrs import field, frozen

from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import Problem
from modelmerger.values.plan import WHOLE_MODEL

Gram = Callable[[], Sequence[Sequence[float]]]
"""Makes the Gram matrix of one tensor's updates, one row a model."""


class Coefficients(Protocol):
    """The strategy, as it acts on updates: a merged update is Σ cᵢ·updateᵢ, and these are the cᵢ.

    Updates that it does not combine so are merged by `merge_cores`.
    """

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

    def in_cores(self, tensor: str, shape: Sequence[int]) -> bool:
        """Whether the updates of a tensor are merged by `merge_cores`, and not by coefficients."""

    def merge_cores(self, tensor: str, shape: Sequence[int], cores: Sequence[Any], noise: Sequence[float]) -> Any:
        """The merged core of a tensor: float64, of the shape of the others.

        `cores`, `noise`: one of each a model, also for those of weight 0, which are left out; as the hook
        `merge_cores` describes them.
        """


@frozen(eq=False)
class Composition:
    """What a strategy or a plugin makes of the models of a merge, to be written as it is read."""

    checkpoint: Checkpoint
    """Its tensors, which may be computed when they are read. Its `donor.config`, if it has one, is what config.json is
    made from; else the donor's is."""
    dtypes: Mapping[str, str] = field(factory=dict, repr=False)
    """The dtypes that tensors are written in; those that are not here are written as the option `torch_dtype` says."""
    writes: str = WHOLE_MODEL
    """What is written, in a word: a whole model, or what belongs to one ("adapter") and has no config.json."""
    stem: str = "model"
    """What the files of weights are named by."""
    sharded: bool = True
    """Whether the weights may be written in several files."""
    documents: Mapping[str, bytes] = field(factory=dict, repr=False)
    """Files that it consists of beside its weights, by name."""
    updates: bool = False
    """Whether it is made of what the models change of their base, and not of the models."""
    adds_up: bool = False
    """Of such a one: whether it is the base and Σ cᵢ·updateᵢ with whatever coefficients the strategy says, but for
    rounding. Whoever looks for weights then knows the merge at others."""
    observed: Mapping[str, Mapping[str, float]] = field(factory=dict, repr=False)
    """Tensor → statistic → number, for `MergeReport.observed`."""
    relative_error: float | None = None
    """‖written − exact‖/‖exact‖ over all tensors, for the report; None where nothing is approximated."""
    memory: int = 0
    """Bytes that are held at a time while it is read, by one worker."""
    notes: Sequence[Problem] = ()
    """What the user should know of it."""


@frozen(eq=False)
class DeferredComposition:
    """A composition that cannot be made without reading weights, which `check` does not."""

    compose: Callable[[], Composition]
    """Makes it."""
    notes: Sequence[Problem] = ()
    """What the user should know before that."""
