"""The merged adapter as a checkpoint: each tensor is made, in float64, when it is read, from the adapters and one coefficient each."""

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod

import torch
from attrs import evolve, field, frozen
from modelmerger import Checkpoint, Donor, TensorInfo
from modelmerger.files import FileIdentity
from torch import Tensor

from modelmerger_plugins.peft_adapters.changes import Change, LowRank, Replaced, ReplacedRows
from modelmerger_plugins.peft_adapters.factors import Pair, Product, as_peft_does, best, inner_product
from modelmerger_plugins.peft_adapters.folding import Adapter, elements

SCANNED = 1 << 18
KEPT = 4
"""Products that are held at a time: those that workers are in, and those before."""


class Part(ABC):
    """What the merged adapter does to one tensor of the base. coefficients: one a model of the config."""

    tensor: str
    coefficients: Sequence[float]

    @property
    @abstractmethod
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The tensors that say it, by their names in the adapter."""

    @property
    @abstractmethod
    def change(self) -> Change:
        """The same as a change of the base."""

    @property
    @abstractmethod
    def counts(self) -> bool:
        """Whether any model that does something to the tensor has another coefficient than 0."""

    @abstractmethod
    def values(self, key: str, start: int, stop: int) -> Tensor:
        """Elements of one of the tensors, float64."""

    @abstractmethod
    def gram(self) -> list[list[float]]:
        """The inner products of the models' updates."""


@frozen(eq=False)
class Term:
    """One adapter's low-rank update, and the number of its model."""

    model: int
    adapter: Adapter
    change: LowRank

    @property
    def rank(self) -> int:
        return self.adapter.stored.tensors[self.change.a].shape[0]


class Products:
    """The products that were made last. Safe from several threads; each is made once at a time."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, Product] = OrderedDict()
        self._making: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, name: str, make: Callable[[], Product]) -> Product:
        with self._lock:
            making = self._making.setdefault(name, threading.Lock())
        with making:
            if (found := self._held.get(name)) is None:
                found = make()
            with self._lock:
                self._held[name] = found
                self._held.move_to_end(name)
                if len(self._held) > KEPT:
                    self._held.popitem(last=False)
        return found


@frozen(eq=False)
class FactoredPart(Part):
    """A sum of low-rank updates. most: the largest rank; None for the sum itself. rank: of the product, once it is found."""

    tensor: str
    terms: Sequence[Term]
    models: int
    as_peft: bool = False
    most: int | None = None
    coefficients: Sequence[float] = ()
    rank: int = 0
    held: Products = field(factory=Products)

    @property
    def like(self) -> LowRank:
        return self.terms[0].change

    @property
    def of_embedding(self) -> bool:
        return not self.like.a.endswith(".weight")

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        stored = self.terms[0].adapter.stored.tensors
        a, b = stored[self.like.a].shape, stored[self.like.b].shape
        return {self.like.a: (self.rank, *a[1:]), self.like.b: (b[0], self.rank, *b[2:])}

    @property
    def change(self) -> Change:
        return evolve(self.like, scale=1.0)

    @property
    def counts(self) -> bool:
        return any(self.coefficients[term.model] for term in self.terms)

    @property
    def numbers(self) -> int:
        """In the factors of all adapters together."""
        return sum(
            term.adapter.stored.tensors[key].elements for term in self.terms for key in (term.change.a, term.change.b)
        )

    def values(self, key: str, start: int, stop: int) -> Tensor:
        product = self.held.get(self.tensor, self.product)
        factor = product.right if (key == self.like.a) != self.like.swapped else product.left
        return (factor.T if self.like.swapped else factor).reshape(-1)[start:stop]

    def gram(self) -> list[list[float]]:
        pairs = [self._pairs([float(model == i) for model in range(self.models)]) for i in range(self.models)]
        return [[inner_product(ours, theirs) for theirs in pairs] for ours in pairs]

    def product(self) -> Product:
        """The merged update in its factors."""
        pairs = self._pairs(self.coefficients)
        return as_peft_does(pairs) if self.as_peft else best(pairs, self.most, self.rank)

    def _pairs(self, coefficients: Sequence[float]) -> list[Pair]:
        """An update of coefficient 0 is not read."""
        return [
            Pair(
                coefficients[term.model] * term.change.scale,
                *term.change.factors(partial(term.adapter.finite, dtype=torch.float64)),
            )
            for term in self.terms
            if coefficients[term.model]
        ]


@frozen(eq=False)
class ReplacingPart(Part):
    """A tensor, or some rows of it, that a model replaces: base + Σ c·(model − base), in full.

    models: those that do something to the tensor, by number. key: its name in the adapter. indices: the rows; None for all.
    """

    tensor: str
    base: Checkpoint
    models: Mapping[int, Checkpoint]
    key: str
    indices: Sequence[int] | None = None
    count: int = 0
    coefficients: Sequence[float] = ()

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        shape = self.base.tensors[self.tensor].shape
        return {self.key: shape if self.indices is None else (len(self.indices), *shape[1:])}

    @property
    def change(self) -> Change:
        return Replaced(self.key) if self.indices is None else ReplacedRows(self.key, self.indices)

    @property
    def counts(self) -> bool:
        return any(self.coefficients[model] for model in self.models)

    def values(self, key: str, start: int, stop: int) -> Tensor:
        if self.indices is None:
            return self._interpolated(start, stop)
        width = prod(self.shapes[key][1:])
        first, last = start // width, -(-stop // width)
        rows = [self._interpolated(row * width, (row + 1) * width) for row in self.indices[first:last]]
        return torch.cat(rows)[start - first * width : stop - first * width]

    def gram(self) -> list[list[float]]:
        gram = torch.zeros(self.count, self.count, dtype=torch.float64)
        for start, stop in self._spans():
            base = elements(self.base, self.tensor, start, stop).double()
            updates = {i: elements(model, self.tensor, start, stop).double() - base for i, model in self.models.items()}
            for i, ours in updates.items():
                for j, theirs in updates.items():
                    gram[i, j] += torch.dot(ours, theirs)
        return gram.tolist()

    def _spans(self) -> list[tuple[int, int]]:
        info = self.base.tensors[self.tensor]
        if self.indices is not None:
            width = prod(info.shape[1:])
            return [(row * width, (row + 1) * width) for row in self.indices]
        return [(start, min(info.elements, start + SCANNED)) for start in range(0, info.elements, SCANNED)]

    def _interpolated(self, start: int, stop: int) -> Tensor:
        shares = {model: self.coefficients[model] for model in self.models if self.coefficients[model]}
        total = torch.zeros(stop - start, dtype=torch.float64)
        for share, checkpoint in (
            (1 - sum(shares.values()), self.base),
            *((c, self.models[i]) for i, c in shares.items()),
        ):
            if share:
                total += elements(checkpoint, self.tensor, start, stop).double() * share
        return total


@frozen(eq=False)
class MergedAdapter(Checkpoint):
    """The parts of a merged adapter, under the names that PEFT has for them; in float64."""

    name: str
    parts: Sequence[Part]
    files: tuple[FileIdentity, ...]
    donor: Donor = field(factory=Donor)
    aliases: Mapping[str, str] = field(factory=dict)
    _by_key: Mapping[str, Part] = field(init=False)
    tensors: Mapping[str, TensorInfo] = field(init=False)

    @_by_key.default
    def _parts_by_key(self) -> Mapping[str, Part]:
        return {key: part for part in self.parts for key in part.shapes}

    @tensors.default
    def _tensors(self) -> Mapping[str, TensorInfo]:
        return {key: TensorInfo("F64", shape) for part in self.parts for key, shape in part.shapes.items()}

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        out = torch.frombuffer(buffer, dtype=torch.float64)
        out.copy_(self._by_key[tensor].values(tensor, start, stop))
