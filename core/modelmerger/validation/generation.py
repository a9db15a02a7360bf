"""Sampled continuations that depend on a seed and a prompt's index in the list, not on what else is in the batch."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

TEMPERATURE, NUCLEUS = 0.7, 0.9


def continued(
    model: Any,
    device: "torch.device",
    prompts: Sequence[Sequence[int]],
    places: Sequence[int],
    new_tokens: int,
    seed: int,
    end: int | None,
) -> Iterator[list[int]]:
    """The continuation of each prompt of a batch, as token ids without the end of the text.

    Token by token with the cache of transformers' generate. places: of the prompts in the whole list. end: the token
    that ends a text, if there is one; it is barred from the first place.
    """
    import torch
    from transformers import GenerationConfig

    pad = end if end is not None else 0
    length = max(map(len, prompts))
    ids = torch.tensor([[*[pad] * (length - len(p)), *p] for p in prompts], device=device)
    mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts], device=device)
    config: Any = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        max_new_tokens=new_tokens, do_sample=False, eos_token_id=end, pad_token_id=pad
    )
    with torch.inference_mode(), _plain_generation(model):
        made = model.generate(
            ids, attention_mask=mask, generation_config=config, logits_processor=[Chance(seed, places, length, end)]
        )
    for row in made[:, length:].tolist():
        yield row[: row.index(end)] if end in row else row


class Chance:
    """A logits processor after which the largest score is a sample: temperature, nucleus, then Gumbel noise.

    The nucleus is the fewest of the likeliest tokens whose probability is `NUCLEUS` or more together. argmax(log p + g)
    with g from Gumbel(0, 1) is a draw from p: Maddison, Tarlow and Minka 2014, https://arxiv.org/abs/1411.0030, section
    2. The noise depends on the seed, the place of the prompt and the step alone.
    """

    def __init__(self, seed: int, places: Sequence[int], length: int, end: int | None) -> None:
        """length: of the padded prompts, in tokens. end: the token that an answer must not begin with, if any."""
        import torch

        self._length, self._end = length, end
        self._generators = [torch.Generator().manual_seed((seed * 1_000_003 + place) % 2**63) for place in places]

    def __call__(self, ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        """`scores` of shape (prompts, vocabulary) after `ids` of shape (prompts, tokens so far) → float32 alike."""
        import torch

        if self._end is not None and ids.shape[1] == self._length:
            scores = scores.index_fill(-1, torch.tensor([self._end], device=scores.device), -math.inf)
        log_p = (scores.float() / TEMPERATURE).log_softmax(-1)
        ordered, order = log_p.sort(dim=-1, descending=True, stable=True)
        before = ordered.exp().cumsum(-1) - ordered.exp()
        kept = ordered.masked_fill(before >= NUCLEUS, -math.inf)
        log_p = torch.full_like(log_p, -math.inf).scatter(-1, order, kept)
        uniform = torch.stack(
            [torch.rand(scores.shape[-1], generator=g, dtype=torch.float64) for g in self._generators]
        )
        gumbel = -(-uniform.clamp(1e-12, 1 - 1e-12).log()).log()
        return log_p + gumbel.float().to(scores.device)


@contextlib.contextmanager
def _plain_generation(model: Any) -> Iterator[None]:
    """Sets the model's own generation defaults (penalties, forced tokens) aside, so that answers can be compared."""
    from transformers import GenerationConfig

    own = model.generation_config
    model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]  # as above
    try:
        yield
    finally:
        model.generation_config = own
