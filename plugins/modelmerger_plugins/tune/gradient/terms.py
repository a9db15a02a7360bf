"""The terms of a strategy that splits its merge, made once and kept in files: low-rank factors, or whole tensors."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from attrs import field, frozen
from modelmerger import OutputError, Problem
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from modelmerger_plugins.tune.gradient.sources import Source

Term = Tensor | tuple[Tensor, Tensor]
"""A tensor, or two factors whose product it is: (rows, r) and (r, columns)."""


@frozen(eq=False)
class KeptTerms:
    """The terms of one tensor, in a file."""

    path: Path
    """The file: `left` and `right`, the factors of all terms that have some, side by side; `whole`, the others."""
    count: int
    """How many there are."""
    ranks: Sequence[tuple[int, int]]
    """Of each term with factors that are not empty, its number and how many columns of `left` are its own."""
    whole: Sequence[int]
    """The numbers of those without factors."""

    @classmethod
    def written(cls, terms: Sequence[Term], path: Path, dtype: torch.dtype) -> "KeptTerms":
        """Writes them. Raises `OutputError`."""
        pairs = {i: term for i, term in enumerate(terms) if not isinstance(term, Tensor)}
        factored = {i: factors for i, factors in pairs.items() if factors[0].shape[1]}
        whole = {i: term for i, term in enumerate(terms) if isinstance(term, Tensor)}
        kept = {}
        if factored:
            kept["left"] = torch.cat([left for left, _ in factored.values()], 1)
            kept["right"] = torch.cat([right for _, right in factored.values()])
        if whole:
            kept["whole"] = torch.stack([term.reshape(-1) for term in whole.values()])
        try:
            if kept:
                save_file({name: tensor.to("cpu", dtype).contiguous() for name, tensor in kept.items()}, path)
        except (OSError, SafetensorError) as error:
            raise OutputError(Problem(f"cannot be written ({error})", str(path))) from error
        return cls(path, len(terms), [(i, left.shape[1]) for i, (left, _) in factored.items()], list(whole))

    def factors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The factors of all terms that have some, side by side: (rows, ranks) and (ranks, columns)."""
        with self._open(device) as file:
            return file.get_tensor("left"), file.get_tensor("right")

    def added_up(self, coefficients: Tensor, start: int, stop: int) -> Tensor:
        """Elements `start` to `stop` of Σ cᵢ·termᵢ, as a vector on the device and in the dtype of the cᵢ."""
        total = torch.zeros(stop - start, dtype=coefficients.dtype, device=coefficients.device)
        with self._open(coefficients.device) as file:
            if self.ranks:
                left, right, behind = _factors(file, start, stop)
                own = [coefficients[i].expand(rank) for i, rank in self.ranks]
                total += ((left * torch.cat(own)) @ right).view(-1)[behind : behind + stop - start]
            if self.whole:
                total += coefficients[list(self.whole)] @ file.get_slice("whole")[:, start:stop].to(total.device)
        return total

    def products(self, gradient: Tensor, start: int, stop: int) -> Tensor:
        """The inner products with elements `start` to `stop` of each term: float64. gradient: those elements."""
        found = torch.zeros(self.count, dtype=torch.float64)
        with self._open(gradient.device) as file:
            if self.ranks:
                left, right, behind = _factors(file, start, stop)
                rows = gradient.new_zeros(left.shape[0] * right.shape[1])
                rows[behind : behind + stop - start] = gradient
                each = (left * (rows.view(-1, right.shape[1]) @ right.T)).sum(0, dtype=torch.float64).cpu()
                of_ranks = torch.split(each, [rank for _, rank in self.ranks])
                for (i, _), own in zip(self.ranks, of_ranks, strict=True):
                    found[i] = own.sum()
            if self.whole:
                each = file.get_slice("whole")[:, start:stop].to(gradient.device) @ gradient
                found[list(self.whole)] = each.double().cpu()
        return found

    def _open(self, device: torch.device) -> Any:
        there = bool(self.ranks or self.whole)
        return safe_open(self.path, "pt", device=str(device)) if there else contextlib.nullcontext()


def _factors(file: Any, start: int, stop: int) -> tuple[Tensor, Tensor, int]:
    """The rows that elements lie in, of the left factors; the right ones; elements of these rows before `start`."""
    right = file.get_tensor("right")
    columns = right.shape[1]
    first, last = start // columns, -(-stop // columns)
    return file.get_slice("left")[first:last].to(right.device), right, start - first * columns


@frozen(eq=False)
class SplitSource(Source):
    """A tensor that is a linear combination of terms, and of the base.

    Its coefficients: those of `Source`, and between them and the last one those of the terms. The first ones are 0 but
    where the tensor is that of one model.
    """

    terms: KeptTerms = field(repr=False)
    """The terms."""

    @classmethod
    def of(cls, source: Source, terms: KeptTerms) -> "SplitSource":
        """The same tensor with its terms."""
        return cls(source.name, source.shape, source.inputs, source.dtype, source.device, terms)

    @property
    def size(self) -> int:
        """How many coefficients it has."""
        return len(self.inputs) + self.terms.count

    def merged(self, coefficients: Tensor, start: int, stop: int) -> Tensor:
        """Elements `start` to `stop` of the merged tensor, as a vector."""
        models = len(self.inputs) - 1
        plain = super().merged(torch.cat([coefficients[:models], coefficients[-1:]]), start, stop)
        of_terms = coefficients[models:-1]
        if of_terms.any():
            plain += self.terms.added_up(of_terms.to(self.device, self.dtype), start, stop)
        return plain

    def products(self, gradient: Tensor, start: int, stop: int) -> Tensor:
        """The derivatives for the coefficients of the terms, float64, and 0 for the others, which never change."""
        found = torch.zeros(self.size, dtype=torch.float64)
        flat = gradient.reshape(-1).to(self.device, self.dtype)
        found[len(self.inputs) - 1 : -1] = self.terms.products(flat, start, stop)
        return found
