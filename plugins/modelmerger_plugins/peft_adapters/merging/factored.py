"""The part of a merged adapter that is a pair of factors: the sum of the adapters' low-rank updates of a tensor."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from attrs import evolve, field, frozen
from modelmerger import Checkpoint, Coefficients
from torch import Tensor

from modelmerger_plugins.peft_adapters.changes.change import Change
from modelmerger_plugins.peft_adapters.changes.low_rank import LowRank
from modelmerger_plugins.peft_adapters.merging.cores import MergeCores, merged_in_cores
from modelmerger_plugins.peft_adapters.merging.factors import Pair, Product, as_peft_does, best, inner_product
from modelmerger_plugins.peft_adapters.merging.part import Measured, Part
from modelmerger_plugins.peft_adapters.merging.products import Products
from modelmerger_plugins.peft_adapters.merging.term import Term
from modelmerger_plugins.peft_adapters.reading.modules import name_in_memory

CORES = 8
"""So many matrices of the size of a core are held, for each copy of the factors."""


@frozen(eq=False)
class FactoredPart(Part):
    """Σ c·update, or what a merge of the updates' cores comes to, as one low-rank update."""

    tensor: str
    """The tensor of the base."""
    terms: Sequence[Term]
    """The updates; each is a `LowRank`."""
    models: int
    """How many models are merged, with those that leave the tensor as it is."""
    as_peft: bool = False
    """Whether factors are added up as PEFT does it, instead of updates."""
    most: int | None = None
    """The largest rank; None for the sum itself."""
    coefficients: Sequence[float] = ()
    """One a model, once they are known."""
    merge_cores: MergeCores | None = None
    """How cores are merged, once that is known; None for coefficients."""
    rank: int = 0
    """Of the sum, once it is known."""
    products: Products = field(factory=Products)
    """Where the product is kept while it is read; several parts may share it."""

    @property
    def like(self) -> LowRank:
        """One of the updates; the merged one has its keys and its orientation."""
        change = self.terms[0].change
        assert isinstance(change, LowRank)
        return change

    @property
    def of_embedding(self) -> bool:
        """Whether the tensor is an embedding, whose factors have other names in PEFT."""
        return not self.like.a.endswith(".weight")

    @property
    def in_memory(self) -> str:
        """What PEFT calls the tensor."""
        return name_in_memory(self.like.a, self.tensor)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Those of A and B, by their keys."""
        stored = self.terms[0].adapter.stored.tensors
        a, b = stored[self.like.a].shape, stored[self.like.b].shape
        return {self.like.a: (self.rank, *a[1:]), self.like.b: (b[0], self.rank, *b[2:])}

    @property
    def changes(self) -> Mapping[str, Change]:
        """The merged update; its scale is 1."""
        return {self.tensor: evolve(self.like, scale=1.0)}

    @property
    def counts(self) -> bool:
        """Whether any term has another coefficient than 0. What cores come to always counts."""
        return self.merge_cores is not None or any(self.coefficients[term.model] for term in self.terms)

    @property
    def numbers(self) -> int:
        """How many numbers the factors of all terms have, and what is made of their cores."""
        cores = CORES * sum(term.rank for term in self.terms) ** 2 if self.merge_cores is not None else 0
        return cores + sum(term.numbers for term in self.terms)

    def weighed(self, base: Checkpoint, coefficients: Coefficients) -> "FactoredPart":
        """With the coefficients, or with the strategy's way to merge cores."""
        shape = base.tensors[self.tensor].shape
        if coefficients.in_cores(self.tensor, shape):
            return evolve(self, merge_cores=partial(coefficients.merge_cores, self.tensor, shape))
        return evolve(self, coefficients=coefficients(self.tensor, shape, self._gram))

    def measured(self, dtype: torch.dtype) -> Measured:
        """With the rank; the factors of all terms are read."""
        product = self.product()
        missing = (product.relative_error(dtype) * product.norm) ** 2
        return Measured(evolve(self, rank=product.left.shape[1]), product.norm**2, missing)

    def values(self, key: str, start: int, stop: int) -> Tensor:
        """Elements of A or B."""
        product = self.products.get(self.tensor, self.product)
        factor = product.right if (key == self.like.a) != self.like.swapped else product.left
        return (factor.T if self.like.swapped else factor).reshape(-1)[start:stop]

    def product(self) -> Product:
        """The merged update in its factors."""
        if self.merge_cores is not None:
            return best([merged_in_cores(self._updates(), self.merge_cores)], self.most, self.rank)
        pairs = self._pairs(self.coefficients)
        return as_peft_does(pairs) if self.as_peft else best(pairs, self.most, self.rank)

    def _gram(self) -> list[list[float]]:
        updates = self._updates()
        return [[inner_product(ours, theirs) for theirs in updates] for ours in updates]

    def _updates(self) -> list[list[Pair]]:
        """Those of each model."""
        return [self._pairs([float(model == i) for model in range(self.models)]) for i in range(self.models)]

    def _pairs(self, coefficients: Sequence[float]) -> list[Pair]:
        """An update of coefficient 0 is not read."""
        pairs = []
        for term in self.terms:
            assert isinstance(term.change, LowRank)
            if coefficients[term.model]:
                coefficient = coefficients[term.model] * term.change.scale
                pairs.append(Pair(coefficient, *term.change.factors(term.tensor)))
        return pairs
