"""The part of a merged adapter that is a pair of factors for all experts of a parameter, a sum of updates for each."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from attrs import evolve, field, frozen
from modelmerger import Checkpoint, Coefficients
from torch import Tensor

from modelmerger_plugins.peft_adapters.changes.change import Change
from modelmerger_plugins.peft_adapters.changes.of_experts import OfExperts
from modelmerger_plugins.peft_adapters.merging.factors import Pair, Product, best, inner_product
from modelmerger_plugins.peft_adapters.merging.part import Measured, Part
from modelmerger_plugins.peft_adapters.merging.products import Products
from modelmerger_plugins.peft_adapters.merging.term import Term


@frozen(eq=False)
class TensorSum:
    """Σ c·update of one tensor of the base: of all experts of a parameter, or of some outputs of one expert."""

    tensor: str
    """The tensor of the base."""
    terms: Sequence[Term]
    """The updates; each is an `OfExperts`."""
    coefficients: Sequence[float] = ()
    """One a model, once they are known."""

    @property
    def like(self) -> OfExperts:
        """One of the updates."""
        change = self.terms[0].change
        assert isinstance(change, OfExperts)
        return change

    def gram(self, models: int) -> list[list[float]]:
        """The inner products of the models' updates of this tensor. `models`: how many models are merged."""
        gram = torch.zeros(models, models, dtype=torch.float64)
        for expert in self.like.experts:
            pairs: list[list[Pair]] = [[] for _ in range(models)]
            for number, term in enumerate(self.terms):
                pairs[term.model].append(Pair(term.change.scale, *self.factors(number, expert)))
            gram += torch.tensor([[inner_product(ours, theirs) for theirs in pairs] for ours in pairs])
        return gram.tolist()

    def factors(self, number: int, expert: int) -> tuple[Tensor, Tensor]:
        """(rows, r) and (r, columns) of one term's update of one expert."""
        term = self.terms[number]
        assert isinstance(term.change, OfExperts)
        return term.change.factors(term.tensor, expert)


@frozen(eq=False)
class ExpertsPart(Part):
    """Sums of low-rank updates, one for each expert of a parameter; all of one rank, as PEFT stores them."""

    tensor: str
    """The parameter, with its module."""
    sums: Sequence[TensorSum]
    """One for each tensor of the base that holds a share of the parameter, expert by expert.

    Those of one expert have the same right factors.
    """
    models: int
    """How many models are merged, with those that leave the parameter as it is."""
    most: int | None = None
    """The largest rank; None for the sums themselves."""
    rank: int = 0
    """Of each expert's sum, once it is known."""
    keys: tuple[str, str] = ("", "")
    """Those of A and B, once they are known."""
    products: Products = field(factory=Products)
    """Where A and B are kept while they are read; several parts may share it."""

    @property
    def like(self) -> OfExperts:
        """One of the updates; the merged one has its orientation."""
        return self.sums[0].like

    @property
    def experts(self) -> int:
        """How many experts the parameter holds."""
        return self.like.parameter.experts

    @property
    def in_memory(self) -> str:
        """The parameter, which no file calls so."""
        return self.tensor

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Those of A and B, by their keys."""
        stored = self.sums[0].terms[0].adapter.stored.tensors
        ranks = self.rank * self.experts
        a, b = self.keys
        return {a: (ranks, stored[self.like.a].shape[1]), b: (stored[self.like.b].shape[0], ranks)}

    @property
    def changes(self) -> Mapping[str, Change]:
        """The merged updates of all tensors; their scale is 1."""
        a, b = self.keys
        return {of_one.tensor: evolve(of_one.like, a=a, b=b, scale=1.0) for of_one in self.sums}

    @property
    def counts(self) -> bool:
        """Whether any term of any tensor has another coefficient than 0."""
        return any(of_one.coefficients[term.model] for of_one in self.sums for term in of_one.terms)

    @property
    def numbers(self) -> int:
        """How many numbers the factors of all adapters have."""
        return sum(term.numbers for term in self.sums[0].terms)

    def weighed(self, base: Checkpoint, coefficients: Coefficients) -> "ExpertsPart":
        """With coefficients of its own for each tensor."""
        sums = []
        for of_one in self.sums:
            shape, gram = base.tensors[of_one.tensor].shape, partial(of_one.gram, self.models)
            sums.append(evolve(of_one, coefficients=coefficients(of_one.tensor, shape, gram)))
        return evolve(self, sums=sums)

    def measured(self, dtype: torch.dtype) -> Measured:
        """With the largest rank that an expert's sum has; the factors of all terms are read."""
        rank, square, missing = 1, 0.0, 0.0
        for expert in range(self.experts):
            if pairs := self._pairs(expert):
                product = best(pairs, self.most)
                rank = max(rank, product.left.shape[1])
                square += product.norm**2
                missing += (product.relative_error(dtype) * product.norm) ** 2
        return Measured(evolve(self, rank=rank), square, missing)

    def values(self, key: str, start: int, stop: int) -> Tensor:
        """Elements of A or B."""
        made = self.products.get(self.tensor, self._product)
        return (made.right if key == self.keys[0] else made.left).reshape(-1)[start:stop]

    def _product(self) -> Product:
        """B and A of all experts, laid out as PEFT does."""
        shapes = self.shapes
        a, b = (torch.zeros(shapes[key], dtype=torch.float64) for key in self.keys)
        for expert in range(self.experts):
            if pairs := self._pairs(expert):
                product = best(pairs, self.rank)
                left, right = product.left, product.right
                if self.like.swapped:
                    left, right = right.T, left.T
                a[expert * self.rank :][: len(right)] = right
                b[:, expert :: self.experts][:, : left.shape[1]] = left
        return Product(b, a, [], 0.0)

    def _pairs(self, expert: int) -> list[Pair]:
        """The updates of one expert, of all its tensors together. One whose coefficients are all 0 is not read."""
        sums = [of_one for of_one in self.sums if expert in of_one.like.experts]
        pairs = []
        for number, term in enumerate(sums[0].terms):
            shares = [of_one.coefficients[term.model] for of_one in sums]
            if any(shares):
                lefts, rights = zip(*(of_one.factors(number, expert) for of_one in sums), strict=True)
                left = torch.cat([share * left for share, left in zip(shares, lefts, strict=True)])
                pairs.append(Pair(term.change.scale, left, rights[0]))
        return pairs
