"""LoHa, LoKr and VeRA: updates that are other products than LoRA's."""

from typing import TYPE_CHECKING

from attrs import frozen

from modelmerger_plugins.peft_adapters.changes.change import Sources, Update

if TYPE_CHECKING:
    from torch import Tensor


@frozen
class Hadamard(Update):
    """LoHa: s·(B₁A₁ ⊙ B₂A₂). Hyeon-Woo et al. 2022, https://arxiv.org/abs/2108.06098, section 2.1."""

    pairs: tuple[tuple[str, str], tuple[str, str]]
    """The adapter's tensors B₁ (outputs, r) and A₁ (r, inputs), then B₂ and A₂."""
    scale: float
    """s."""

    @property
    def nothing_if_zero(self) -> tuple[str, ...]:
        """Any factor."""
        return tuple(key for pair in self.pairs for key in pair)

    def update(self, first: int, count: int, sources: Sources) -> "Tensor":
        """Rows of s·(B₁A₁ ⊙ B₂A₂)."""
        one, two = (sources.tensor(b)[first : first + count] @ sources.tensor(a) for b, a in self.pairs)
        return one.mul_(two).mul_(self.scale)


@frozen
class Kronecker(Update):
    """LoKr: s·(C ⊗ D). Yeh et al. 2023, https://arxiv.org/abs/2309.14859, section 3.2."""

    left: tuple[str, ...]
    """The adapter's tensor C, or the two whose product it is."""
    right: tuple[str, ...]
    """D, likewise."""
    scale: float
    """s."""

    @property
    def nothing_if_zero(self) -> tuple[str, ...]:
        """Any factor."""
        return *self.left, *self.right

    def update(self, first: int, count: int, sources: Sources) -> "Tensor":
        """Rows of s·(C ⊗ D)."""
        left = sources.once("left of ⊗", lambda: _product(self.left, sources))
        right = sources.once("right of ⊗", lambda: _product(self.right, sources))
        rows = range(first, first + count)
        outer = left[[row // len(right) for row in rows]]
        inner = right[[row % len(right) for row in rows]]
        return (outer[:, :, None] * inner[:, None, :]).flatten(1).mul_(self.scale)


@frozen
class Vera(Update):
    """VeRA: (b ⊙ B)(d ⊙ A). Kopiczko et al. 2024, https://arxiv.org/abs/2310.11454, eq. 2."""

    a: str
    """The adapter's tensor A, (r, columns): all layers share it, each takes the first columns."""
    b: str
    """The adapter's tensor B, (rows, r): all layers share it, each takes the first rows."""
    out_scales: str
    """The adapter's tensor b: one number an output."""
    rank_scales: str
    """The adapter's tensor d, (r,)."""
    out: int
    """Outputs of the layer."""
    into: int
    """Inputs of the layer."""
    swapped: bool
    """Whether the base stores the transposed matrix."""

    @property
    def nothing_if_zero(self) -> tuple[str, ...]:
        """b, which is zero before training, and d."""
        return self.out_scales, self.rank_scales

    def update(self, first: int, count: int, sources: Sources) -> "Tensor":
        """Rows of (b ⊙ B)(d ⊙ A), or of its transpose."""
        rows = slice(first, first + count)
        a = sources.tensor(self.a)[:, : self.into] * sources.tensor(self.rank_scales)[:, None]
        b, scales = sources.tensor(self.b)[: self.out], sources.tensor(self.out_scales)[:, None]
        if self.swapped:
            return a.T[rows] @ (b * scales).T
        return (b[rows] * scales[rows]) @ a


def _product(keys: tuple[str, ...], sources: Sources) -> "Tensor":
    first, *others = (sources.tensor(key) for key in keys)
    return first @ others[0] if others else first
