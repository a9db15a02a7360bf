"""The model under test, with what it is measured on, the models it may be compared with, and its answers."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelmerger.validation.language_model import CausalLanguageModel
from modelmerger.validation.models import LoadedModel, Models
from modelmerger.values.errors import UnmeasurableError
from modelmerger.values.settings import ValidationSettings
from modelmerger.values.subject import Answer, LabelScores, Texts

if TYPE_CHECKING:
    import torch


class MeasuredModel:
    """A `Subject`: what its parts are is said there."""

    def __init__(
        self,
        name: str,
        models: Models,
        sources: Sequence[str],
        base: str | None,
        texts: Texts,
        prompts: Texts,
        settings: ValidationSettings,
        score_labels: Callable[[Sequence[str]], LabelScores],
    ) -> None:
        self.name, self.sources, self.base = name, sources, base
        self.texts, self.prompts = texts, prompts
        self.score_labels = score_labels
        self._models, self._settings = models, settings
        self._answers: dict[str, list[Answer]] | None = None

    @property
    def place(self) -> str:
        """Where the user finds the model, for messages."""
        return self._models.place(self.name)

    @property
    def model(self) -> Any:
        """The transformers model, loaded when it is first asked for."""
        return self.open(self.name).model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer, or None."""
        return self.open(self.name).tokenizer

    @property
    def device(self) -> "torch.device":
        """Where its inputs go."""
        return self.open(self.name).device

    @property
    def language(self) -> CausalLanguageModel:
        """The model as one that predicts the next token."""
        return self.open(self.name).language

    def open(self, name: str) -> LoadedModel:
        """One of `sources`, or the base. The model under test is let go meanwhile, unless the caller holds it."""
        return self._models.open(name)

    @property
    def answered(self) -> bool:
        """Whether the model has been asked."""
        return self._answers is not None

    def answers(self) -> Mapping[str, Sequence[Answer]]:
        """What the model answers to every prompt, by the prompt's label. Generated once for all validators."""
        if self._answers is None:
            model = self.language
            prompts = [prompt for group in self.prompts.values() for prompt in group]
            settings = self._settings
            made = iter(model.answers(prompts, settings.new_tokens, settings.seed, self._templated(model)))
            self._answers = {label: [next(made) for _ in group] for label, group in self.prompts.items()}
        return self._answers

    def _templated(self, model: CausalLanguageModel) -> bool:
        has = bool(getattr(model.tokenizer, "chat_template", None))
        if self._settings.chat_template is True and not has:
            raise UnmeasurableError(f"chat_template is true, and the tokenizer of {model.name} has no chat template")
        return has if self._settings.chat_template == "auto" else self._settings.chat_template is True
