"""Tensors of adapters of one base: they are merged, and applied, in their factors."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from modelmerger import Apart, Checkpoint, read_elements
from torch import Tensor
from torch.nn import Linear, Module
from torch.nn.functional import linear

from modelmerger_plugins.tune.gradient.sources import Source
from modelmerger_plugins.tune.gradient.terms import KeptTerms


@frozen(eq=False)
class FactoredSource(Source):
    """A tensor s·W₀ + Σ cᵢ·BᵢAᵢ, of which no model is ever made whole. Its coefficients are those of `Source`."""

    stored: tuple[Checkpoint, str]
    """Where W₀ is read."""
    terms: KeptTerms = field(repr=False)
    """BᵢAᵢ, one an input."""

    def merged(self, coefficients: Tensor, start: int, stop: int) -> Tensor:
        """Elements `start` to `stop` of the merged tensor, as a vector."""
        told = each(coefficients).to(self.device, self.dtype)
        return self._base(start, stop).mul_(told[-1]).add_(self.terms.added_up(told[:-1], start, stop))

    def products(self, gradient: Tensor, start: int, stop: int) -> Tensor:
        """The derivatives for the coefficients, float64, given that for elements `start` to `stop`, a vector."""
        flat = gradient.reshape(-1).to(self.device, self.dtype)
        of_terms = self.terms.products(flat, start, stop)
        of_total = of_terms[-1:].clone()
        for first, last in self.pieces(start, stop):
            of_total += torch.dot(self._base(first, last), flat[first - start : last - start]).double().cpu()
        return torch.cat([of_terms[:-1] - of_terms[-1], of_total])

    def applied(self, inputs: Tensor, coefficients: Tensor) -> Tensor:
        """The product of a linear layer with this weight: W₀ and the factors are applied one after the other."""
        told = each(coefficients).to(inputs)
        found = linear(inputs, self._base(0, self.elements).view(self.shape)) * told[-1]
        if not self.terms.ranks:
            return found
        left, right = self.terms.factors(self.device)
        own = torch.cat([told[i].expand(rank) for i, rank in self.terms.ranks])
        return found + linear(linear(inputs, right) * own, left)

    def _base(self, start: int, stop: int) -> Tensor:
        return read_elements(*self.stored, start, stop).to(self.device, self.dtype)


def each(coefficients: Tensor) -> Tensor:
    """The coefficient of each input's own term, and then that of what they have in common."""
    own, total = coefficients[:-1], coefficients[-1:]
    return torch.cat([own, total - own.sum(), total])


class FactoredLinear(Module):
    """A linear layer whose weight is never made."""

    def __init__(self, layer: Linear, source: FactoredSource) -> None:
        """layer: without numbers, which gives the names of parameters."""
        super().__init__()
        self.weight = layer.weight
        self.bias: Tensor | None = layer.bias
        self.__dict__["_source"] = source
        self.coefficients: Tensor | None = None

    def forward(self, inputs: Tensor) -> Any:
        """What the linear layer gives."""
        found = self.__dict__["_source"].applied(inputs, self.coefficients)
        return found if self.bias is None else found + self.bias


def in_factors(layer: Module, sources: Mapping[str, Source]) -> dict[str, FactoredLinear]:
    """Puts a `FactoredLinear` in place of each linear layer whose weight is in factors; by the names of the weights.

    sources: by the names of the layer's parameters.
    """
    found = {}
    for name, source in sources.items():
        path, _, parameter = name.rpartition(".")
        place = layer.get_submodule(path)
        if isinstance(source, FactoredSource) and parameter == "weight" and type(place) is Linear and path:
            parent, _, last = path.rpartition(".")
            found[name] = FactoredLinear(place, source)
            setattr(layer.get_submodule(parent), last, found[name])
    return found


def with_factors(sources: Mapping[str, Source], folder: Path) -> dict[str, Source]:
    """The sources, with those in factors that are a tensor of one base and products. folder: where factors are kept."""
    found: dict[str, Source] = {}
    for number, (name, source) in enumerate(sources.items()):
        found[name] = source
        apart = [checkpoint.apart(tensor) for checkpoint, tensor in source.inputs]
        if len(apart) < 2 or len({_place(one) for one in apart}) > 1 or type(source) is not Source:
            continue
        pairs = [_side_by_side(one.factors, source) for one in apart]
        kept = KeptTerms.written(pairs, folder / f"factors-{number}.safetensors", source.dtype)
        stored = apart[-1].checkpoint, apart[-1].tensor
        found[name] = FactoredSource(name, source.shape, source.inputs, source.dtype, source.device, stored, kept)
    return found


def _place(one: Apart) -> Any:
    """What two tensors have in common that are one, however often their model was opened."""
    checkpoint = one.checkpoint
    known = checkpoint.files if checkpoint.files and not checkpoint.content else id(checkpoint)
    return known, one.tensor


def _side_by_side(factors: Iterable[tuple[Tensor, Tensor]], source: Source) -> tuple[Tensor, Tensor]:
    """Several products as one; of rank 0 where there is none."""
    pairs = list(factors)
    if not pairs:
        rows = source.shape[0] if source.shape else 1
        return torch.zeros(rows, 0), torch.zeros(0, source.elements // max(1, rows))
    return torch.cat([left for left, _ in pairs], 1), torch.cat([right for _, right in pairs])
