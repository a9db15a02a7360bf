"""The merged adapter as a checkpoint: each tensor is made, in float64, when it is read, from the adapters and one coefficient each."""

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod, sqrt

import torch
from attrs import evolve, field, frozen
from modelmerger import Checkpoint, Coefficients, Donor, TensorInfo
from modelmerger.values.file_identity import FileIdentity
from torch import Tensor

from modelmerger_plugins.peft_adapters.changes import Change, LowRank, OfExperts, Replaced, ReplacedRows
from modelmerger_plugins.peft_adapters.factors import Pair, Product, as_peft_does, best, inner_product
from modelmerger_plugins.peft_adapters.folding import Adapter, elements

SCANNED = 1 << 18
KEPT = 4
"""Products that are held at a time: those that workers are in, and those before."""


class Part(ABC):
    """What the merged adapter does to one tensor of the base, or to the tensors that are one parameter. tensor: its name."""

    tensor: str

    @property
    @abstractmethod
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The tensors that say it, by their names in the adapter."""

    @property
    @abstractmethod
    def changes(self) -> Mapping[str, Change]:
        """The same as changes of the base's tensors."""

    @property
    @abstractmethod
    def counts(self) -> bool:
        """Whether any model that does something to the tensor has another coefficient than 0."""

    @property
    @abstractmethod
    def numbers(self) -> int:
        """In the factors of all adapters together."""

    @abstractmethod
    def values(self, key: str, start: int, stop: int) -> Tensor:
        """Elements of one of the tensors, float64."""

    @abstractmethod
    def weighed(self, base: Checkpoint, coefficients: Coefficients) -> "Part":
        """The same with a coefficient for each model."""

    @abstractmethod
    def measured(self, dtype: torch.dtype) -> "Measured":
        """The same with its rank, and how well it says what it should when it is written in `dtype`."""


@frozen(eq=False)
class Measured:
    """A part whose rank is known, and the squared norms of the update that it should be and of what is missing of that."""

    part: Part
    square: float
    missing: float

    @property
    def relative_error(self) -> float:
        return sqrt(self.missing / self.square) if self.square else 0.0


@frozen(eq=False)
class Term:
    """One adapter's low-rank update, and the number of its model."""

    model: int
    adapter: Adapter
    change: LowRank | OfExperts

    @property
    def rank(self) -> int:
        experts = self.change.experts if isinstance(self.change, OfExperts) else 1
        return self.adapter.stored.tensors[self.change.a].shape[0] // experts

    @property
    def numbers(self) -> int:
        """In its factors."""
        return sum(self.adapter.stored.tensors[key].elements for key in (self.change.a, self.change.b))

    def whole(self, key: str) -> Tensor:
        """A tensor of the adapter, float64."""
        return self.adapter.finite(key, torch.float64)


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
        change = self.terms[0].change
        assert isinstance(change, LowRank)
        return change

    @property
    def of_embedding(self) -> bool:
        return not self.like.a.endswith(".weight")

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        stored = self.terms[0].adapter.stored.tensors
        a, b = stored[self.like.a].shape, stored[self.like.b].shape
        return {self.like.a: (self.rank, *a[1:]), self.like.b: (b[0], self.rank, *b[2:])}

    @property
    def changes(self) -> Mapping[str, Change]:
        return {self.tensor: evolve(self.like, scale=1.0)}

    @property
    def counts(self) -> bool:
        return any(self.coefficients[term.model] for term in self.terms)

    @property
    def numbers(self) -> int:
        return sum(term.numbers for term in self.terms)

    def weighed(self, base: Checkpoint, coefficients: Coefficients) -> "FactoredPart":
        found = coefficients(self.tensor, base.tensors[self.tensor].shape, self._gram)
        return evolve(self, coefficients=found)

    def measured(self, dtype: torch.dtype) -> Measured:
        product = self.product()
        missing = (product.relative_error(dtype) * product.norm) ** 2
        return Measured(evolve(self, rank=product.left.shape[1]), product.norm**2, missing)

    def values(self, key: str, start: int, stop: int) -> Tensor:
        product = self.held.get(self.tensor, self.product)
        factor = product.right if (key == self.like.a) != self.like.swapped else product.left
        return (factor.T if self.like.swapped else factor).reshape(-1)[start:stop]

    def product(self) -> Product:
        """The merged update in its factors."""
        pairs = self._pairs(self.coefficients)
        return as_peft_does(pairs) if self.as_peft else best(pairs, self.most, self.rank)

    def _gram(self) -> list[list[float]]:
        pairs = [self._pairs([float(model == i) for model in range(self.models)]) for i in range(self.models)]
        return [[inner_product(ours, theirs) for theirs in pairs] for ours in pairs]

    def _pairs(self, coefficients: Sequence[float]) -> list[Pair]:
        """An update of coefficient 0 is not read."""
        pairs = []
        for term in self.terms:
            assert isinstance(term.change, LowRank)
            if coefficients[term.model]:
                coefficient = coefficients[term.model] * term.change.scale
                pairs.append(Pair(coefficient, *term.change.factors(term.whole)))
        return pairs


@frozen(eq=False)
class Piece:
    """What is done to one tensor of the base that holds experts, or some of their outputs. coefficients: one a model."""

    tensor: str
    terms: Sequence[Term]
    coefficients: Sequence[float] = ()

    @property
    def like(self) -> OfExperts:
        change = self.terms[0].change
        assert isinstance(change, OfExperts)
        return change

    def gram(self, models: int) -> list[list[float]]:
        """The inner products of the models' updates of this tensor."""
        gram = torch.zeros(models, models, dtype=torch.float64)
        for expert in self.like.held:
            pairs: list[list[Pair]] = [[] for _ in range(models)]
            for number, term in enumerate(self.terms):
                pairs[term.model].append(Pair(term.change.scale, *self.factors(number, expert)))
            gram += torch.tensor([[inner_product(ours, theirs) for theirs in pairs] for ours in pairs])
        return gram.tolist()

    def factors(self, number: int, expert: int) -> tuple[Tensor, Tensor]:
        """Of one term."""
        term = self.terms[number]
        assert isinstance(term.change, OfExperts)
        return term.change.factors(term.whole, expert)


@frozen(eq=False)
class ExpertsPart(Part):
    """Sums of low-rank updates, one for each expert of a parameter; all of one rank, as PEFT stores them.

    pieces: the tensors of the base that the parameter consists of. They have one right factor, and coefficients of their own.
    """

    tensor: str
    pieces: Sequence[Piece]
    models: int
    most: int | None = None
    rank: int = 0
    keys: tuple[str, str] = ("", "")
    held: Products = field(factory=Products)

    @property
    def like(self) -> OfExperts:
        return self.pieces[0].like

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        stored = self.pieces[0].terms[0].adapter.stored.tensors
        ranks = self.rank * self.like.experts
        a, b = self.keys
        return {a: (ranks, stored[self.like.a].shape[1]), b: (stored[self.like.b].shape[0], ranks)}

    @property
    def changes(self) -> Mapping[str, Change]:
        a, b = self.keys
        return {piece.tensor: evolve(piece.like, a=a, b=b, scale=1.0) for piece in self.pieces}

    @property
    def counts(self) -> bool:
        return any(piece.coefficients[term.model] for piece in self.pieces for term in piece.terms)

    @property
    def numbers(self) -> int:
        return sum(term.numbers for term in self.pieces[0].terms)

    def weighed(self, base: Checkpoint, coefficients: Coefficients) -> "ExpertsPart":
        pieces = [
            evolve(
                piece,
                coefficients=coefficients(piece.tensor, base.tensors[piece.tensor].shape, partial(piece.gram, self.models)),
            )
            for piece in self.pieces
        ]  # fmt: skip
        return evolve(self, pieces=pieces)

    def measured(self, dtype: torch.dtype) -> Measured:
        rank, square, missing = 1, 0.0, 0.0
        for expert in range(self.like.experts):
            if pairs := self._pairs(expert):
                product = best(pairs, self.most)
                rank = max(rank, product.left.shape[1])
                square += product.norm**2
                missing += (product.relative_error(dtype) * product.norm) ** 2
        return Measured(evolve(self, rank=rank), square, missing)

    def values(self, key: str, start: int, stop: int) -> Tensor:
        made = self.held.get(self.tensor, self._product)
        return (made.right if key == self.keys[0] else made.left).reshape(-1)[start:stop]

    def _product(self) -> Product:
        """B and A of all experts, laid out as PEFT does."""
        shapes = self.shapes
        a, b = (torch.zeros(shapes[key], dtype=torch.float64) for key in self.keys)
        for expert in range(self.like.experts):
            if pairs := self._pairs(expert):
                product = best(pairs, self.rank)
                left, right = product.left, product.right
                if self.like.swapped:
                    left, right = right.T, left.T
                a[expert * self.rank :][: len(right)] = right
                b[:, expert :: self.like.experts][:, : left.shape[1]] = left
        return Product(b, a, [], 0.0)

    def _pairs(self, expert: int) -> list[Pair]:
        """The updates of one expert, of all its pieces together. One whose coefficients are all 0 is not read."""
        pieces = [piece for piece in self.pieces if expert in piece.like.held]
        pairs = []
        for number, term in enumerate(pieces[0].terms):
            shares = [piece.coefficients[term.model] for piece in pieces]
            if any(shares):
                lefts, rights = zip(*(piece.factors(number, expert) for piece in pieces), strict=True)
                left = torch.cat([share * left for share, left in zip(shares, lefts, strict=True)])
                pairs.append(Pair(term.change.scale, left, rights[0]))
        return pairs


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
    def changes(self) -> Mapping[str, Change]:
        return {self.tensor: Replaced(self.key) if self.indices is None else ReplacedRows(self.key, self.indices)}

    @property
    def counts(self) -> bool:
        return any(self.coefficients[model] for model in self.models)

    @property
    def numbers(self) -> int:
        return 0

    def values(self, key: str, start: int, stop: int) -> Tensor:
        if self.indices is None:
            return self._interpolated(start, stop)
        width = prod(self.shapes[key][1:])
        first, last = start // width, -(-stop // width)
        rows = [self._interpolated(row * width, (row + 1) * width) for row in self.indices[first:last]]
        return torch.cat(rows)[start - first * width : stop - first * width]

    def weighed(self, base: Checkpoint, coefficients: Coefficients) -> "ReplacingPart":
        return evolve(self, coefficients=coefficients(self.tensor, base.tensors[self.tensor].shape, self._gram))

    def measured(self, dtype: torch.dtype) -> Measured:
        """Written in float64, it is what it should be, and is not looked at."""
        square = missing = 0.0
        for start, stop in self._spans() if dtype != torch.float64 else ():
            exact = self._interpolated(start, stop)
            square += float((exact - elements(self.base, self.tensor, start, stop).double()).square_().sum())
            missing += float((exact.to(dtype).double() - exact).square_().sum())
        return Measured(self, square, missing)

    def _gram(self) -> list[list[float]]:
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
