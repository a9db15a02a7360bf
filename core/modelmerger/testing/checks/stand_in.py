"""A model to be measured that is none: small, made in no time, and with all that validators may ask of one."""

import zlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch
from attrs import field, frozen

from modelmerger.values.errors import UnmeasurableError
from modelmerger.values.subject import Answer, LabelScores, Subject, Texts

TEXTS: Texts = MappingProxyType({"": ("One text.", "نص آخر"), "formal": ("How do you do?",)})
NO_TEXTS: Texts = MappingProxyType({})


class _Model(torch.nn.Module):
    """Predicts tokens, which are bytes."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # which torch's own beginnings draw from
            self.embedding, self.head = torch.nn.Embedding(256, 8), torch.nn.Linear(8, 256)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        states = self.embedding(input_ids)
        return SimpleNamespace(logits=self.head(states), hidden_states=(states, states), last_hidden_state=states)


class _Inputs(dict[str, Any]):
    def to(self, _: Any) -> "_Inputs":
        return self


class _Tokenizer:
    """A token is a byte."""

    bos_token_id = eos_token_id = 0
    unk_token_id = chat_template = None

    def __call__(self, text: str | Sequence[str], **_: Any) -> _Inputs:
        ids = [list(one.encode()) for one in ([text] if isinstance(text, str) else text)]
        length = max(map(len, ids), default=0)
        padded = torch.tensor([one + [0] * (length - len(one)) for one in ids], dtype=torch.long)
        return _Inputs(input_ids=padded, attention_mask=(padded > 0).long())

    def encode(self, text: str, **_: Any) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return bytes(int(one) for one in ids).decode(errors="replace")


@frozen(eq=False)
class _Language:
    """A `LanguageModel` whose numbers are made of the tokens alone."""

    name: str
    start: Sequence[int] = (0,)
    window: int = 64
    stride: int = 32

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def unknown(self, ids: Sequence[int]) -> int:
        return 0 * len(ids)

    def text_log_likelihoods(self, texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        return [self._scores(ids) for ids in texts]

    def log_likelihoods(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[torch.Tensor]:
        return [self._scores(ids) for _, ids in pairs]

    def answers(self, prompts: Sequence[str], new_tokens: int, *_: Any) -> list[Answer]:
        return [self._answer(prompt, new_tokens) for prompt in prompts]

    def _scores(self, ids: Sequence[int]) -> torch.Tensor:
        salt = zlib.crc32(self.name.encode()) % 97
        return torch.tensor([-1 - (one + salt) % 7 / 4 for one in ids], dtype=torch.float64)

    def _answer(self, prompt: str, new_tokens: int) -> Answer:
        text = f"{prompt[::-1]} and more of that"[:new_tokens]
        return Answer(prompt=prompt, prompt_ids=tuple(prompt.encode()), ids=tuple(text.encode()), text=text)


@frozen(eq=False)
class _Opened:
    name: str
    model: Any
    tokenizer: Any
    device: torch.device
    predicts: bool

    @property
    def language(self) -> Any:
        if not self.predicts or self.tokenizer is None:
            raise UnmeasurableError(f"the model {self.name} does not predict the next token of a text")
        return _Language(self.name)


@frozen(eq=False)
class StandIn:
    """A `Subject`, and two sources. predicts: whether it predicts tokens. has_tokenizer: else it has none."""

    texts: Texts = TEXTS
    prompts: Texts = TEXTS
    predicts: bool = True
    has_tokenizer: bool = True
    labels: tuple[str, ...] = ("formal", "casual")
    name: str = "merged"
    sources: Sequence[str] = ("model_0", "model_1")
    base: str | None = None
    model: Any = field(factory=_Model)

    @property
    def tokenizer(self) -> Any:
        """That of bytes, or None."""
        return _Tokenizer() if self.has_tokenizer else None

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    @property
    def language(self) -> Any:
        """The model as one that predicts the next token."""
        return self.open(self.name).language

    def open(self, name: str) -> Any:
        """The model itself, or a source."""
        model = self.model if name == self.name else _Model()
        return _Opened(name, model, self.tokenizer, self.device, self.predicts)

    def answers(self) -> Mapping[str, Sequence[Answer]]:
        """To each prompt."""
        return {label: self.language.answers(prompts, 24, 0, False) for label, prompts in self.prompts.items()}

    def score_labels(self, texts: Sequence[str]) -> LabelScores:
        """By a word in the text."""
        rows = [(0.75, 0.25) if "do" in text else (0.5, 0.5) for text in texts]
        return LabelScores(scorer="a stand-in", stated="never measured", labels=self.labels, rows=rows)


def stand_in(**how: Any) -> Subject:
    """A new one."""
    made: Subject = StandIn(**how)
    return made
