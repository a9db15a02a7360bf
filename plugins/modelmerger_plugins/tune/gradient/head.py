"""The negative log-likelihood of tokens under a vocabulary head that is never whole in memory."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from modelmerger_plugins.tune.gradient.sources import Source

ROWS = 1 << 13
"""Entries of the vocabulary that are merged at a time."""
LOGITS = 1 << 22
"""Logits that are in memory at a time, at most, where one row of the chunk allows it."""
Shaping = Callable[[Tensor], Tensor]


def shaping(config: Mapping[str, Any]) -> Shaping:
    """What a model does to its logits, element by element, by its config."""
    cap, scale, divisor = (config.get(key) for key in ("final_logit_softcapping", "logit_scale", "logits_scaling"))

    def shaped(logits: Tensor) -> Tensor:
        logits = logits * scale if scale else logits
        logits = logits / divisor if divisor else logits
        return torch.tanh(logits / cap) * cap if cap else logits

    return shaped


class _Nats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, coefficients: Tensor, bias: Tensor | None, source: "Source", targets: Tensor, f: Any
    ) -> Tensor:
        total = torch.full((len(hidden),), -torch.inf, dtype=_wide(hidden.dtype), device=hidden.device)
        chosen = torch.zeros_like(total)
        for first, last in _chunks(source, len(hidden)):
            weight = _weight(source, coefficients, first, last)
            logits = f(_logits(hidden, weight, bias, first, last)).to(total.dtype)
            total = torch.logaddexp(total, logits.logsumexp(-1))
            here = (targets >= first) & (targets < last)
            chosen[here] = logits[here, targets[here] - first]
        ctx.save_for_backward(hidden, coefficients, bias, targets, total)
        ctx.source, ctx.f = source, f
        return total - chosen

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        hidden, coefficients, bias, targets, total = ctx.saved_tensors
        (upstream,) = gradients
        of_hidden, of_bias = torch.zeros_like(hidden), torch.zeros_like(bias) if bias is not None else None
        sums = torch.zeros_like(coefficients)
        width = ctx.source.shape[1]
        for first, last in _chunks(ctx.source, len(hidden)):
            weight = _weight(ctx.source, coefficients, first, last)
            with torch.enable_grad():
                raw = _logits(hidden, weight, bias, first, last).detach().requires_grad_()
                logits = ctx.f(raw)
            share = (logits.detach().to(total.dtype) - total[:, None]).exp_()
            here = ((targets >= first) & (targets < last)).nonzero().squeeze(-1)
            share[here, targets[here] - first] -= 1
            share = (share * upstream[:, None]).to(hidden.dtype)
            if logits is not raw:
                (share,) = torch.autograd.grad(logits, raw, share)
            of_hidden += share @ weight
            sums += ctx.source.products(share.T @ hidden, first * width, last * width)
            if of_bias is not None:
                of_bias[first:last] = share.sum(0)
        return of_hidden, sums, of_bias, None, None, None


def nats(
    hidden: Tensor, coefficients: Tensor, bias: Tensor | None, source: "Source", targets: Tensor, shaped: Shaping
) -> Tensor:
    """The nats of each token, float32, or float64 where `hidden` is that: (tokens,).

    hidden: (tokens, width). bias: of the head, (vocabulary,), if it has one. targets: the tokens, int64. shaped: what
    becomes of logits before the softmax.
    """
    arguments = hidden, coefficients, bias, source, targets, shaped
    return cast("Tensor", _Nats.apply(*arguments))  # type: ignore[no-untyped-call]


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _chunks(source: "Source", tokens: int) -> list[tuple[int, int]]:
    rows = max(1, min(ROWS, LOGITS // max(1, tokens)))
    return [(at, min(at + rows, source.shape[0])) for at in range(0, source.shape[0], rows)]


def _weight(source: "Source", coefficients: Tensor, first: int, last: int) -> Tensor:
    width = source.shape[1]
    return source.merged(coefficients, first * width, last * width).view(-1, width)


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, first: int, last: int) -> Tensor:
    logits = hidden @ weight.T
    return logits if bias is None else logits + bias[first:last]
