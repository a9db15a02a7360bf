"""The model under test: its parts, and its answers, which are made once."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from inputs.tiny_models import load, tied
from modelmerger import ModelReference, UnmeasurableError, ValidationSettings
from modelmerger.validation.models import Models
from modelmerger.validation.subject import MeasuredModel
from modelmerger_validators.arabic_dialects import score_labels

from tests.core.validation.assembled import always_on

__all__ = ["tied"]
pytestmark = pytest.mark.usefixtures("tokenizers_here")
PROMPTS = {"egyptian": ["إزيك؟"], "gulf": ["شلونك؟", "شخبارك؟"]}


def at(path: Path) -> ModelReference:
    return ModelReference(str(path), path.name, "models[0].path")


def subject(models: Models, name: str = "a", **settings: Any) -> MeasuredModel:
    asked = ValidationSettings(run_tests=False, max_new_tokens=4, **settings)
    return MeasuredModel(name, models, ["b"], "base", {}, PROMPTS, asked, score_labels)


def test_the_model_its_tokenizer_and_its_language_are_those_of_the_model_under_test(tied: SimpleNamespace) -> None:
    looked_at = subject(Models({"a": at(tied.a), "b": at(tied.b)}, 2, always_on()))
    own, other = load(tied.a)[0].state_dict(), load(tied.b)[0].state_dict()
    name = "model.embed_tokens.weight"
    assert looked_at.open("b").name == "b"
    assert torch.equal(looked_at.open("b").model.state_dict()[name], other[name])
    assert torch.equal(looked_at.model.state_dict()[name], own[name])
    assert looked_at.language.model is looked_at.model
    assert looked_at.language.tokenizer is looked_at.tokenizer


def test_answers_are_made_once_and_stand_under_the_label_of_their_prompt(tied: SimpleNamespace) -> None:
    looked_at = subject(Models({"a": at(tied.a)}, 2, always_on()))
    answers = looked_at.answers()
    assert looked_at.answers() is answers
    assert {label: [answer.prompt for answer in group] for label, group in answers.items()} == PROMPTS


@pytest.mark.parametrize(("chat_template", "begins"), [("auto", True), (True, True), (False, False)])
def test_the_chat_template_is_used_as_the_settings_say(tied: SimpleNamespace, chat_template: Any, begins: bool) -> None:
    looked_at = subject(Models({"a": at(tied.a)}, 2, always_on()), chat_template=chat_template)
    (answer,) = looked_at.answers()["egyptian"]
    assert (answer.prompt_ids[-1] == tied.words.convert_tokens_to_ids("</s>")) is begins


def test_a_chat_template_that_is_asked_for_and_missing_is_said(tied: SimpleNamespace) -> None:
    words = SimpleNamespace(chat_template=None)
    with pytest.raises(UnmeasurableError, match="chat_template is true, and the tokenizer of a has no chat template"):
        subject(Models({"a": (load(tied.a)[0], words)}, 2, always_on()), chat_template=True).answers()
