"""Held-out losses of the example's models: mean negative log-likelihood per token, in nats."""

from pathlib import Path

import torch
from attrs import frozen
from sources import VARIETIES
from transformers import PreTrainedModel, PreTrainedTokenizerBase

HELDOUT = Path(__file__).resolve().parent / "heldout"


@frozen
class Score:
    """Loss of one model on one variety, sentence by sentence: nats (float64) and tokens (int64), both (sentences,)."""

    nats: torch.Tensor
    tokens: torch.Tensor

    @property
    def per_token(self) -> float:
        """Sum of the nats over all sentences by the number of their tokens."""
        return float(self.nats.sum() / self.tokens.sum())


def read_heldout(directory: Path = HELDOUT) -> dict[str, list[str]]:
    """The held-out sentences by variety, in file order."""
    return {variety: (directory / f"{variety}.txt").read_text(encoding="utf-8").splitlines() for variety in VARIETIES}


def score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sentences: list[str], batch_size: int = 32
) -> Score:
    """Scores every token of every sentence, the first one given the beginning-of-sequence token alone."""
    encoded = [tokenizer.encode(sentence, add_special_tokens=False) for sentence in sentences]
    parts = [_score_batch(model, tokenizer, encoded[i : i + batch_size]) for i in range(0, len(encoded), batch_size)]
    return Score(torch.cat(parts), torch.tensor([len(ids) for ids in encoded]))


@torch.inference_mode()
def _score_batch(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, encoded: list[list[int]]) -> torch.Tensor:
    length = 1 + max(len(ids) for ids in encoded)
    input_ids = torch.full((len(encoded), length), tokenizer.pad_token_id)
    scored = torch.zeros((len(encoded), length), dtype=torch.bool)
    for row, ids in enumerate(encoded):
        input_ids[row, 0] = tokenizer.bos_token_id
        input_ids[row, 1 : 1 + len(ids)] = torch.tensor(ids)
        scored[row, 1 : 1 + len(ids)] = True
    attention = scored.long()
    attention[:, 0] = 1
    logits = model(input_ids=input_ids, attention_mask=attention).logits[:, :-1].float()
    chosen = logits.log_softmax(-1).gather(-1, input_ids[:, 1:, None]).squeeze(-1)
    return -(chosen * scored[:, 1:]).double().sum(1)


def mean_per_token(scores: list[Score]) -> float:
    """Mean over varieties of the loss per token: every variety counts the same."""
    return sum(score.per_token for score in scores) / len(scores)


def gain_interval(better: list[Score], worse: list[Score], resamples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of mean_per_token(worse) - mean_per_token(better), paired bootstrap over sentences.

    The two lists hold the same varieties, in the same order and over the same sentences.
    """
    generator = torch.Generator().manual_seed(seed)
    gains = torch.zeros(resamples, dtype=torch.float64)
    for one, other in zip(better, worse, strict=True):
        drawn = torch.randint(len(one.tokens), (resamples, len(one.tokens)), generator=generator)
        gains += (other.nats - one.nats)[drawn].sum(1) / one.tokens[drawn].sum(1) / len(better)
    low, high = torch.quantile(gains, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
