"""The model under test: loaded when asked for, one at a time, its answers made once."""

import gc
import json
import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inputs.tiny_models import load, tied
from modelmerger import ModelReference, UnmeasurableError, ValidationSettings
from modelmerger.validation.subject import MeasuredModel, Models
from modelmerger_validators.arabic_dialects import score_labels

__all__ = ["tied"]
PROMPTS = {"egyptian": ["إزيك؟"], "gulf": ["شلونك؟", "شخبارك؟"]}


def at(path: Path) -> ModelReference:
    return ModelReference(str(path), path.name, "models[0].path")


def subject(models: Models, name: str = "a", **settings: Any) -> MeasuredModel:
    asked = ValidationSettings(run_tests=False, max_new_tokens=4, **settings)
    return MeasuredModel(name, models, ["b"], "base", {}, PROMPTS, asked, score_labels)


def test_one_model_is_in_memory_at_a_time_and_none_before_it_is_asked_for(tied: SimpleNamespace) -> None:
    looked_at = subject(Models({"a": at(tied.a), "b": at(tied.b), "missing": at(Path("nowhere"))}, 2))
    first = weakref.ref(looked_at.model.model)
    assert looked_at.model.model is first()
    assert looked_at.open("b").name == "b"
    gc.collect()
    assert first() is None


def test_a_model_that_the_caller_holds_is_taken_as_it_is(tied: SimpleNamespace) -> None:
    model = load(tied.a)[0].train()
    held = subject(Models({"a": (model, tied.words)}, 2)).model
    assert held.model is model
    assert not model.training


def test_answers_are_made_once_and_stand_under_the_label_of_their_prompt(tied: SimpleNamespace) -> None:
    looked_at = subject(Models({"a": at(tied.a)}, 2))
    answers = looked_at.answers()
    assert looked_at.answers() is answers
    assert {label: [answer.prompt for answer in group] for label, group in answers.items()} == PROMPTS


@pytest.mark.parametrize(("chat_template", "begins"), [("auto", True), (True, True), (False, False)])
def test_the_chat_template_is_used_as_the_settings_say(tied: SimpleNamespace, chat_template: Any, begins: bool) -> None:
    looked_at = subject(Models({"a": at(tied.a)}, 2), chat_template=chat_template)
    (answer,) = looked_at.answers()["egyptian"]
    assert (answer.prompt_ids[-1] == tied.words.convert_tokens_to_ids("</s>")) is begins


def test_what_cannot_be_loaded_says_why(tied: SimpleNamespace, models: SimpleNamespace, tmp_path: Path) -> None:
    (models.b / "config.json").unlink()
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    shutil.copytree(tied.a, tmp_path / "pickled")
    (tmp_path / "pickled/model.safetensors").rename(tmp_path / "pickled/pytorch_model.bin")
    shutil.copytree(tied.a, tmp_path / "kernel")
    config = json.loads((tied.a / "config.json").read_text()) | {"_attn_implementation": "org/kernel"}
    (tmp_path / "kernel/config.json").write_text(json.dumps(config))
    places = {"gone": tmp_path / "gone", "bare": models.b, "odd": models.a, "small": folder}
    places |= {"pickled": tmp_path / "pickled", "kernel": tmp_path / "kernel"}
    live = ModelReference("<Linear in memory>", "live", "models[0].path", load(tied.a)[0])
    opened = Models({name: at(path) for name, path in places.items()} | {"live": live}, 2)
    for name, reason in (
        ("gone", "gone cannot be loaded: .*/gone: is no directory"),
        ("bare", "has no config.json"),
        ("odd", "odd cannot be loaded: .*attention heads"),
        ("small", "is an adapter of the kind None, which cannot be merged"),
        ("pickled", "has no safetensors weights, and no others are loaded"),
        ("kernel", "wants code from a repository .*org/kernel.*, and none is run"),
        ("live", "the model live has no tokenizer"),
    ):
        with pytest.raises(UnmeasurableError, match=reason):
            opened.open(name)


def test_a_chat_template_that_is_asked_for_and_missing_is_said(tied: SimpleNamespace) -> None:
    words = SimpleNamespace(chat_template=None)
    with pytest.raises(UnmeasurableError, match="chat_template is true, and the tokenizer of a has no chat template"):
        subject(Models({"a": (load(tied.a)[0], words)}, 2), chat_template=True).answers()
