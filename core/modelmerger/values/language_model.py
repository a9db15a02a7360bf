"""A language model as validators see it, whatever it runs on: log-likelihoods of tokens, and answers to prompts."""

from collections.abc import Sequence
from typing import Any, Protocol

from attrs import frozen

Tensor = Any
"""A torch tensor; values know no torch."""


@frozen(kw_only=True)
class Answer:
    """A prompt, and a model's continuation of it."""

    prompt: str
    """As the config or a plugin gives it."""
    prompt_ids: tuple[int, ...]
    """The token ids that the model saw: the prompt with what the chat template or the beginning of a text adds to it."""
    ids: tuple[int, ...]
    """The token ids of the continuation, without the end of the text."""
    text: str
    """The continuation, without special tokens."""


class LanguageModel(Protocol):
    """A model that predicts the next token of a text, with its tokenizer. Its numbers do not depend on the batch size."""

    @property
    def name(self) -> str:
        """The name that the report gives the model."""

    @property
    def start(self) -> list[int]:
        """The one token that every text begins with. Raises `UnmeasurableError` where the tokenizer has none."""

    @property
    def window(self) -> int:
        """How many tokens are seen at once: as many as the model was made for, and at most 1,024."""

    @property
    def stride(self) -> int:
        """How many tokens the window moves on by: every token after the first window has half a window or more before it."""

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens."""

    def unknown(self, ids: Sequence[int]) -> int:
        """How many of the ids are the unknown token, which stands for text that the tokenizer has no token for."""

    def text_log_likelihoods(self, texts: Sequence[Sequence[int]]) -> list[Tensor]:
        """Natural log-likelihood of every token of each text, in nats, seen through a sliding window.

        `texts` are token ids without `start`, which is put before each of them and is not scored. One float64 tensor of shape
        (tokens,) on the CPU for each text; of shape (0,) for an empty one.
        """

    def log_likelihoods(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Tensor]:
        """Natural log-likelihood, in nats, of each token of the second part, given the first part and what is before it.

        Both parts are token ids. The first has one token or more, and both together fit into `window`. One float64 tensor of
        shape (tokens of the second part,) on the CPU for each pair.
        """

    def answers(self, prompts: Sequence[str], new_tokens: int, seed: int, chat_template: bool) -> list[Answer]:
        """Sampled continuations of at most `new_tokens` tokens (temperature 0.7, nucleus of 0.9).

        They are the same for the same seed, prompt and place in the list. The end of the text is barred from the first place,
        since many models take a prompt that is a sentence for a whole text. A prompt that leaves no room in the window for
        `new_tokens` loses its beginning. Raises `UnmeasurableError` where the chat template fails.
        """
