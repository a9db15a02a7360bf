"""Arguments of hooks, for tests that call a hook themselves."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from modelmerger.config.resolve import resolve
from modelmerger.hooks.assembly import assemble, plugins_of
from modelmerger.hooks.registry import Registry
from modelmerger.validation.models import Models
from modelmerger.validation.subject import MeasuredModel
from modelmerger.values.settings import Settings, ValidationSettings
from modelmerger.values.subject import LabelScores, Subject, Texts

_NONE: Mapping[str, Any] = MappingProxyType({})


def settings_of(config: Mapping[str, Any]) -> Settings:
    """The argument `settings` of hooks in a merge of this config. Raises `ConfigError` with every problem.

    >>> settings_of({"strategy": "weighted", "models": [{"path": "./a", "weight": 2}]}).models[0].weight
    2.0
    """
    return resolve(config)[0]


def subject_of(
    model: Any,
    tokenizer: Any,
    settings: ValidationSettings | None = None,
    texts: Texts = _NONE,
    prompts: Texts = _NONE,
    sources: Mapping[str, tuple[Any, Any]] = _NONE,
    score_labels: Callable[[Sequence[str]], LabelScores] | None = None,
) -> Subject:
    """The argument `subject` of validators: a transformers model named `model` with its tokenizer, texts and prompts.

    texts, prompts: by label. sources: by name, each a model and its tokenizer. score_labels: None for the installed
    scorer.

    >>> subject = subject_of(torch.nn.Linear(2, 3), None, texts={"msa": ["مرحبا"]})
    >>> subject.model.weight.shape, subject.texts["msa"], subject.tokenizer
    (torch.Size([3, 2]), ['مرحبا'], None)
    """
    asked = settings or ValidationSettings()
    hooks = assemble(plugins_of(Registry.installed(), None))
    given = [text for found in (texts, prompts) for group in found.values() for text in group]
    models = Models({"model": (model, tokenizer), **sources}, asked.test_batch_size, hooks, texts=given)
    scorer = score_labels or hooks.validation.score_labels
    return MeasuredModel("model", models, list(sources), None, texts, prompts, asked, scorer)
