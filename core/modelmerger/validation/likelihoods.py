"""Log-likelihoods of tokens, whatever the batch size, under a transformers model that predicts the next token.

Batches are padded at the end, and the padding is masked.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Ids = Sequence[int]
Pair = tuple[Ids, Ids]
"""A context of at least one token, and the tokens to score after it."""


def windows(ids: Ids, start: Ids, window: int, stride: int) -> Iterator[Pair]:
    """Pairs of at most `window` tokens that score each of `ids` once, after `start`.

    Beyond the first window, `stride` tokens are scored at a time, given what is before them in the window.
    """
    sequence = [*start, *ids]
    scored = len(start)
    while scored < len(sequence):
        end = min(len(sequence), window if scored == len(start) else scored + stride)
        yield sequence[max(0, end - window) : scored], sequence[scored:end]
        scored = end


def log_likelihoods(model: Any, device: "torch.device", pairs: Sequence[Pair], batch_size: int) -> list["torch.Tensor"]:
    """The natural log-likelihood of each token of each pair's second part: float64 of shape (tokens,), on the CPU."""
    batches = [pairs[i : i + batch_size] for i in range(0, len(pairs), batch_size)]
    return [row for batch in batches for row in _scored(model, device, batch)]


def _scored(model: Any, device: "torch.device", batch: Sequence[Pair]) -> list["torch.Tensor"]:
    import torch

    rows = [[*context, *target] for context, target in batch]
    length = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    with torch.inference_mode():
        logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
    found = []
    for row, (context, target), scores in zip(rows, batch, logits, strict=True):
        predicted = scores[len(context) - 1 : len(row) - 1].float().log_softmax(-1)
        chosen = predicted.gather(-1, torch.tensor(list(target), device=device)[:, None]).squeeze(-1)
        found.append(chosen.double().cpu())
    return found
