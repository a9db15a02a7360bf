"""A model with its tokenizer, as validators use it: log-likelihoods of tokens and reproducible answers, whatever the batch size.

Likelihoods: every token of a text is scored, the first one given the beginning-of-sequence token alone (the end-of-sequence token
for tokenizers that have no other), as lm-evaluation-harness does it. Batches are padded at the end, and the padding is masked.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from modelmerger.values.errors import UnmeasurableError

if TYPE_CHECKING:
    import torch

MOST_CONTEXT = 1024
TEMPERATURE, NUCLEUS = 0.7, 0.9
Ids = Sequence[int]


@frozen(kw_only=True)
class Answer:
    """A prompt, as text and as the token ids that the model saw, and the model's continuation of it."""

    prompt: str
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    text: str


class LanguageModel:
    """name: as in reports. model: a transformers model that predicts the next token. batch_size: sequences at a time."""

    def __init__(self, name: str, model: Any, tokenizer: Any, batch_size: int) -> None:
        self.name, self.model, self.tokenizer, self.batch_size = name, model, tokenizer, batch_size
        _check_causal(model)
        if tokenizer is None:
            raise UnmeasurableError(f"the model {name} has no tokenizer")

    @property
    def start(self) -> list[int]:
        """The one token that every text begins with."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return [int(token)]
        raise UnmeasurableError(f"the tokenizer of {self.name} has no token that begins or ends a text")

    @property
    def window(self) -> int:
        """How many tokens are seen at once: what the model was made for, and at most 1,024."""
        config = self.model.config.get_text_config()
        made_for = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
        return min([MOST_CONTEXT, *(int(length) for length in made_for if length)])

    @property
    def stride(self) -> int:
        """By how much the window moves on: every token beyond the first window sees at least half a window before it."""
        return max(1, self.window // 2)

    @property
    def device(self) -> "torch.device":
        """Where token ids go. Weights that stay on the disk are brought to the CPU module by module."""
        import torch

        device: torch.device = self.model.device
        return torch.device("cpu") if device.type == "meta" else device

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def unknown(self, ids: Ids) -> int:
        """How many of the ids are the unknown token, which stands for text that the tokenizer cannot say."""
        return sum(token == self.tokenizer.unk_token_id for token in ids)

    def text_log_likelihoods(self, texts: Sequence[Ids]) -> list["torch.Tensor"]:
        """Natural log-likelihood of every token of each text, float64 of shape (tokens,), through a sliding window."""
        import torch

        windows = [list(self._windows(ids)) for ids in texts]
        found = iter(self.log_likelihoods([pair for pairs in windows for pair in pairs]))
        none = torch.zeros(0, dtype=torch.float64)
        return [torch.cat([none, *(next(found) for _ in pairs)]) for pairs in windows]

    def _windows(self, ids: Ids) -> Iterator[tuple[Ids, Ids]]:
        """(context, tokens to score): together at most a window; each token is scored once."""
        sequence = [*self.start, *ids]
        scored = 1
        while scored < len(sequence):
            end = min(len(sequence), self.window if scored == 1 else scored + self.stride)
            yield sequence[max(0, end - self.window) : scored], sequence[scored:end]
            scored = end

    def log_likelihoods(self, pairs: Sequence[tuple[Ids, Ids]]) -> list["torch.Tensor"]:
        """Natural log-likelihood of each token of the second part, given the first and what is before it; float64."""
        batches = [pairs[i : i + self.batch_size] for i in range(0, len(pairs), self.batch_size)]
        return [row for batch in batches for row in self._score(batch)]

    def _score(self, batch: Sequence[tuple[Ids, Ids]]) -> list["torch.Tensor"]:
        import torch

        rows = [[*context, *target] for context, target in batch]
        length = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        device = self.device
        with torch.inference_mode():
            logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
        found = []
        for row, (context, target), scores in zip(rows, batch, logits, strict=True):
            predicted = scores[len(context) - 1 : len(row) - 1].float().log_softmax(-1)
            chosen = predicted.gather(-1, torch.tensor(list(target), device=device)[:, None]).squeeze(-1)
            found.append(chosen.double().cpu())
        return found

    def answers(self, prompts: Sequence[str], new_tokens: int, seed: int, chat_template: bool) -> list[Answer]:
        """Sampled continuations (temperature 0.7, nucleus of 0.9): the same for the same seed, prompt and place in the list.

        The end of the text is barred from the first place: to many a model, a prompt that is a sentence is a whole text.
        A prompt that leaves no room in the window for `new_tokens` loses its beginning.
        """
        if new_tokens >= self.window:
            new_tokens = self.window // 2
        encoded = [self._prompt_ids(prompt, chat_template)[-(self.window - new_tokens) :] for prompt in prompts]
        batches = [range(i, min(i + self.batch_size, len(encoded))) for i in range(0, len(encoded), self.batch_size)]
        made = [
            ids for batch in batches for ids in self._continue([encoded[i] for i in batch], batch, new_tokens, seed)
        ]
        return [
            Answer(
                prompt=prompt,
                prompt_ids=tuple(asked),
                ids=tuple(ids),
                text=self.tokenizer.decode(ids, skip_special_tokens=True),
            )
            for prompt, asked, ids in zip(prompts, encoded, made, strict=True)
        ]

    def _prompt_ids(self, prompt: str, chat_template: bool) -> list[int]:
        if not chat_template:
            return [*self.start, *self.encode(prompt)]
        try:
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
        except Exception as error:
            raise UnmeasurableError(
                f"the chat template of {self.name} fails: {type(error).__name__}: {error}"
            ) from error
        return self.encode(text) or self.start

    def _continue(
        self, prompts: Sequence[Ids], places: Sequence[int], new_tokens: int, seed: int
    ) -> Iterator[list[int]]:
        """Token by token with the cache of transformers' generate; chance comes from the seed and the place alone."""
        import torch
        from transformers import GenerationConfig

        eos = self.tokenizer.eos_token_id
        pad = eos if eos is not None else 0
        length = max(map(len, prompts))
        ids = torch.tensor([[*[pad] * (length - len(p)), *p] for p in prompts], device=self.device)
        mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        config: Any = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
            max_new_tokens=new_tokens, do_sample=False, eos_token_id=eos, pad_token_id=pad
        )
        with torch.inference_mode(), _plain_generation(self.model):
            made = self.model.generate(
                ids,
                attention_mask=mask,
                generation_config=config,
                logits_processor=[_Chance(seed, places, length, eos)],
            )
        for row in made[:, length:].tolist():
            yield row[: row.index(eos)] if eos in row else row


class _Chance:
    """A logits processor after which the largest score is a sample: nucleus, temperature, then Gumbel noise.

    argmax(log p + g) with g from Gumbel(0, 1) is a draw from p: Maddison, Tarlow and Minka 2014, https://arxiv.org/abs/1411.0030,
    section 2. The noise depends on the seed, the place of the prompt and the step, and not on what else is in the batch.
    """

    def __init__(self, seed: int, places: Sequence[int], length: int, end: int | None) -> None:
        import torch

        self._length, self._end = length, end
        self._generators = [torch.Generator().manual_seed((seed * 1_000_003 + place) % 2**63) for place in places]

    def __call__(self, ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
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


class _plain_generation:  # noqa: N801 (used as a context manager)
    """Sets the model's own generation defaults (penalties, forced tokens) aside for a moment, so that answers compare."""

    def __init__(self, model: Any) -> None:
        self._model, self._own = model, model.generation_config

    def __enter__(self) -> None:
        from transformers import GenerationConfig

        self._model.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]  # as above

    def __exit__(self, *_: object) -> None:
        self._model.generation_config = self._own


def _check_causal(model: Any) -> None:
    can = getattr(model, "can_generate", None)
    config = getattr(model, "config", None)
    if can is None or config is None or not can() or getattr(config, "is_encoder_decoder", False):
        raise UnmeasurableError(f"{type(model).__name__} is no model that predicts the next token of a text")
