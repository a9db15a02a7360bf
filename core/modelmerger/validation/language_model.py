"""A transformers model that predicts the next token, with its tokenizer: the `LanguageModel` that validators get.

Every token of a text is scored, the first one given the beginning-of-sequence token alone (the end-of-sequence token
for tokenizers that have no other), as lm-evaluation-harness does it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from modelmerger.validation.generation import continued
from modelmerger.validation.likelihoods import Ids, Pair, log_likelihoods, windows
from modelmerger.validation.rendering import render
from modelmerger.validation.tokenizing import Proof
from modelmerger.values.errors import UnmeasurableError
from modelmerger.values.subject import Answer
from modelmerger.values.text import shown

if TYPE_CHECKING:
    import torch

MOST_CONTEXT = 1024
LEAST_CONTEXT = 2
"""Tokens: one that is given, and one that is predicted."""


class CausalLanguageModel:
    """A `LanguageModel`: what its methods give is said there.

    name: as in reports. model: a transformers model that predicts the next token. batch_size: sequences at a time.
    proof: of the tokenizer. Raises `UnmeasurableError` for another model, and where there is no tokenizer.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, batch_size: int, proof: Proof | None = None) -> None:
        self.name, self.model, self.tokenizer, self.batch_size = name, model, tokenizer, batch_size
        self._proof = proof or Proof(name)
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
        """What the model was made for, and at most 1,024 tokens. Raises `UnmeasurableError` for what is no length."""
        config = self.model.config.get_text_config()
        lengths = [MOST_CONTEXT]
        for key in ("max_position_embeddings", "n_positions"):
            if length := getattr(config, key, None):
                if not isinstance(length, int) or length < LEAST_CONTEXT:
                    raise UnmeasurableError(
                        f"the config of {self.name} says {key}: {shown(length)}, which is no length"
                    )
                lengths.append(length)
        return min(lengths)

    @property
    def stride(self) -> int:
        """Half a window."""
        return max(1, self.window // 2)

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def unknown(self, ids: Ids) -> int:
        """How many of the ids are the unknown token."""
        return sum(token == self.tokenizer.unk_token_id for token in ids)

    def text_log_likelihoods(self, texts: Sequence[Ids]) -> list["torch.Tensor"]:
        """Float64 of shape (tokens,) on the CPU for each text."""
        import torch

        pairs = [list(windows(ids, self.start, self.window, self.stride)) for ids in texts]
        found = iter(self.log_likelihoods([pair for group in pairs for pair in group]))
        none = torch.zeros(0, dtype=torch.float64)
        return [torch.cat([none, *(next(found) for _ in group)]) for group in pairs]

    def log_likelihoods(self, pairs: Sequence[Pair]) -> list["torch.Tensor"]:
        """Float64 of shape (tokens of the second part,) on the CPU for each pair."""
        return log_likelihoods(self.model, input_device(self.model), pairs, self.batch_size)

    def answers(self, prompts: Sequence[str], new_tokens: int, seed: int, chat_template: bool) -> list[Answer]:
        """Sampled continuations, a batch at a time.

        Raises `UnmeasurableError` where the chat template fails, or the tokenizer runs away.
        """
        if new_tokens >= self.window:
            new_tokens = self.window // 2
        texts = render(self.name, self.tokenizer, prompts) if chat_template else prompts
        self._proof.of_texts(self.tokenizer, texts)
        asked = [
            self.encode(text) or self.start if chat_template else [*self.start, *self.encode(text)] for text in texts
        ]
        encoded = [ids[-(self.window - new_tokens) :] for ids in asked]
        device, end = input_device(self.model), self.tokenizer.eos_token_id
        made: list[list[int]] = []
        for i in range(0, len(encoded), self.batch_size):
            batch = encoded[i : i + self.batch_size]
            made += continued(self.model, device, batch, range(i, i + len(batch)), new_tokens, seed, end)
        self._proof.of_ids(self.tokenizer, made)
        said = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in made]
        return [
            Answer(prompt=prompt, prompt_ids=tuple(asked), ids=tuple(ids), text=text)
            for prompt, asked, ids, text in zip(prompts, encoded, made, said, strict=True)
        ]


def input_device(model: Any) -> "torch.device":
    """Where the inputs of a module go. Weights that stay on the disk are brought to the CPU one submodule at a time."""
    import torch

    device: torch.device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return torch.device("cpu") if device.type == "meta" else device


def _check_causal(model: Any) -> None:
    can = getattr(model, "can_generate", None)
    config = getattr(model, "config", None)
    if can is None or config is None or not can() or getattr(config, "is_encoder_decoder", False):
        raise UnmeasurableError(f"{type(model).__name__} is not a model that predicts the next token of a text")
