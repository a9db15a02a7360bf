"""Merged tensors that autograd can go through: from coefficients to a tensor, or to some rows of it."""

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from modelmerger_plugins.tune.gradient.sources import Source


class _Combined(torch.autograd.Function):
    """The whole tensor. Its gradient becomes that of the coefficients as soon as it is known."""

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, source: "Source") -> Tensor:
        ctx.source = source
        return source.merged(coefficients, 0, source.elements).view(source.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        return ctx.source.products(gradient.contiguous(), 0, ctx.source.elements), None


class _Rows(torch.autograd.Function):
    """Some rows of a matrix: those of the tokens that occur."""

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, source: "Source", runs: list[tuple[int, int]]) -> Tensor:
        ctx.source, ctx.runs = source, runs
        width = source.shape[1]
        parts = [source.merged(coefficients, first * width, last * width) for first, last in runs]
        return torch.cat(parts).view(-1, width)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gradient,) = gradients
        width, at = ctx.source.shape[1], 0
        sums = torch.zeros(ctx.source.size, dtype=torch.float64)
        for first, last in ctx.runs:
            rows = gradient[at : at + last - first].contiguous()
            sums += ctx.source.products(rows, first * width, last * width)
            at += last - first
        return sums, None, None


def combined(coefficients: Tensor, source: "Source") -> Tensor:
    """The merged tensor. coefficients: as `Source` has them."""
    return cast("Tensor", _Combined.apply(coefficients, source))  # type: ignore[no-untyped-call]


def combined_rows(coefficients: Tensor, source: "Source", rows: Tensor) -> Tensor:
    """Rows of the merged matrix: (rows, columns). rows: their numbers, sorted, each once."""
    runs: list[tuple[int, int]] = []
    for row in rows.tolist():
        if runs and runs[-1][1] == row:
            runs[-1] = runs[-1][0], row + 1
        else:
            runs.append((row, row + 1))
    return cast("Tensor", _Rows.apply(coefficients, source, runs))  # type: ignore[no-untyped-call]
