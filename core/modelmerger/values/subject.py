"""What a validator looks at, as it sees it: a model, the others it may be compared with, texts, prompts and answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from attrs import frozen


@frozen(kw_only=True)
class LabelScores:
    """Probabilities of labels for a list of texts."""

    scorer: str
    """The name of what made them."""
    stated: str
    """Its own accuracy, and on what that was measured: a sentence that goes with every figure made of these."""
    labels: Sequence[str]
    """The labels that it knows."""
    rows: Sequence[Sequence[float] | None]
    """For each text the probability of each label, from 0 to 1, in their order; None for a text it cannot judge."""

    def best_labels(self) -> list[str | None]:
        """The most probable label of each text; None where there is none."""
        return [None if row is None else self.labels[max(range(len(row)), key=row.__getitem__)] for row in self.rows]


Tensor = Any
"""A torch tensor; values know no torch."""


@frozen(kw_only=True)
class Answer:
    """A prompt, and a model's continuation of it."""

    prompt: str
    """As the config or a plugin gives it."""
    prompt_ids: tuple[int, ...]
    """The token ids that the model saw: the prompt with what the chat template or the start of a text adds."""
    ids: tuple[int, ...]
    """The token ids of the continuation, without the end of the text."""
    text: str
    """The continuation, without special tokens."""


class LanguageModel(Protocol):
    """A model that predicts the next token, with its tokenizer. Its numbers do not depend on the batch size."""

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
        """How many tokens the window moves on by: half of it, so that every later token has that many before it."""

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens."""

    def unknown(self, ids: Sequence[int]) -> int:
        """How many of the ids are the unknown token, which stands for text that the tokenizer has no token for."""

    def text_log_likelihoods(self, texts: Sequence[Sequence[int]]) -> list[Tensor]:
        """Natural log-likelihood of every token of each text, in nats, seen through a sliding window.

        `texts` are token ids without `start`, which is put before each of them and is not scored. One float64 tensor of
        shape (tokens,) on the CPU for each text; of shape (0,) for an empty one.
        """

    def log_likelihoods(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Tensor]:
        """Natural log-likelihood, in nats, of each token of the second part, given the first part and what is before
        it.

        Both parts are token ids. The first has one token or more, and both together fit into `window`. One float64
        tensor of shape (tokens of the second part,) on the CPU for each pair.
        """

    def answers(self, prompts: Sequence[str], new_tokens: int, seed: int, chat_template: bool) -> list[Answer]:
        """Sampled continuations of at most `new_tokens` tokens (temperature 0.7, nucleus of 0.9).

        They are the same for the same seed, prompt and index in the list. The end of the text is barred from the first
        place, since many models take a prompt that is a sentence for a whole text. A prompt that leaves no room in the
        window for `new_tokens` loses its beginning. Raises `UnmeasurableError` where the chat template fails.
        """


Texts = Mapping[str, Sequence[str]]
"""Label → texts. Those whose label is not known stand under the empty name."""

Purpose = Literal["scoring", "prompting"]
"""What texts are for: models are scored on them, or answer them."""


class OpenedModel(Protocol):
    """A model of any kind, with its tokenizer."""

    @property
    def name(self) -> str:
        """The name that the report gives the model."""

    @property
    def model(self) -> Any:
        """The transformers model, in evaluation mode; of a source given in Python, the module itself.

        Its weights are in their own dtype and on the devices that `device_map` says.
        """

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer, or None where the model has none."""

    @property
    def device(self) -> Any:
        """The torch device that inputs of the model go to; its weights may be elsewhere, on the disk even."""

    @property
    def language(self) -> LanguageModel:
        """The model as one that predicts the next token of a text.

        Raises `UnmeasurableError` for a model that does not (an encoder, or an encoder with a decoder), and where there
        is no tokenizer.
        """


class Subject(OpenedModel, Protocol):
    """The model under test, with what it is measured on and the models it may be compared with.

    It is loaded when `model`, `tokenizer`, `device`, `language` or `answers` is first asked for, and these raise
    `UnmeasurableError` where it cannot be loaded.
    """

    @property
    def sources(self) -> Sequence[str]:
        """The names of the models that were merged; the model under test is left out."""

    @property
    def base(self) -> str | None:
        """The name of the base model, if the merge has one."""

    @property
    def texts(self) -> Texts:
        """What to score the model on: as many texts as the settings say."""

    @property
    def prompts(self) -> Texts:
        """What to ask the model: as many prompts as the settings say."""

    def open(self, name: str) -> OpenedModel:
        """One of `sources`, or the base model. Raises `UnmeasurableError` where it cannot be loaded.

        One model is in memory at a time: the model before is let go, and is loaded again when it is asked for, so keep
        nothing of it but what was computed with it.
        """

    def answers(self) -> Mapping[str, Sequence[Answer]]:
        """What the model under test answers to every prompt, by the prompt's label. Generated once for all validators.

        Raises `UnmeasurableError` where the model does not predict the next token of a text.
        """

    def score_labels(self, texts: Sequence[str]) -> LabelScores:
        """One row of probabilities for each text. Raises `UnmeasurableError` where no plugin scores labels."""
