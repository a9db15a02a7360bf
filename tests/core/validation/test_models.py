"""Models are loaded when they are asked for, one at a time, whatever they do; what cannot be loaded says why."""

import gc
import json
import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from inputs.tiny_models import load, tied
from modelmerger import ModelReference, UnmeasurableError
from modelmerger.validation.models import Models

from tests.core.validation.assembled import always_on
from tests.core.validation.other_kinds import encoder, encoder_decoder

__all__ = ["encoder", "encoder_decoder", "tied"]


def at(path: Path) -> ModelReference:
    return ModelReference(str(path), path.name, "models[0].path")


def test_one_model_is_in_memory_at_a_time_and_none_before_it_is_asked_for(tied: SimpleNamespace) -> None:
    models = Models({"a": at(tied.a), "b": at(tied.b), "missing": at(Path("nowhere"))}, 2, always_on())
    first = weakref.ref(models.open("a").model)
    assert models.open("a").model is first()
    assert models.open("b").name == "b"
    gc.collect()
    assert first() is None


def test_a_model_that_the_caller_holds_is_taken_as_it_is(tied: SimpleNamespace) -> None:
    model = load(tied.a)[0].train()
    held = Models({"a": (model, tied.words)}, 2, always_on()).open("a")
    assert held.model is model
    assert held.tokenizer is tied.words
    assert not model.training


def test_a_model_in_memory_without_a_tokenizer_is_opened_and_has_no_language(tied: SimpleNamespace) -> None:
    model = load(tied.a)[0]
    live = Models(
        {"live": ModelReference("<Qwen2ForCausalLM in memory>", "live", "models[0].path", model)}, 2, always_on()
    ).open("live")
    assert (live.model, live.tokenizer) == (model, None)
    with pytest.raises(UnmeasurableError, match="the model live has no tokenizer"):
        _ = live.language


def test_tensors_in_memory_are_not_a_model_that_can_be_run(tied: SimpleNamespace) -> None:
    tensors = load(tied.a)[0].state_dict()
    live = ModelReference("<mapping of tensors in memory>", "live", "models[0].path", tensors)
    with pytest.raises(UnmeasurableError, match="live is a OrderedDict in memory, not a model that can be run"):
        Models({"live": live}, 2, always_on()).open("live")


@pytest.mark.parametrize(
    ("kind", "class_name"), [("encoder", "BertForMaskedLM"), ("encoder_decoder", "T5ForConditionalGeneration")]
)
def test_models_that_do_not_predict_the_next_token_are_opened_too(
    request: pytest.FixtureRequest, kind: str, class_name: str
) -> None:
    made = request.getfixturevalue(kind)
    opened = Models({"a": at(made.a)}, 2, always_on()).open("a")
    assert (type(opened.model).__name__, opened.model.training) == (class_name, False)
    for name, tensor in load(made.a)[0].state_dict().items():
        assert torch.equal(opened.model.state_dict()[name], tensor)
    assert opened.tokenizer("the cat").input_ids == made.words("the cat").input_ids
    with pytest.raises(UnmeasurableError, match=f"{class_name} is not a model that predicts the next token of a text"):
        _ = opened.language


def test_what_cannot_be_loaded_says_why(tied: SimpleNamespace, models: SimpleNamespace, tmp_path: Path) -> None:
    (models.b / "config.json").unlink()
    shutil.copytree(tied.a, tmp_path / "pickled")
    (tmp_path / "pickled/model.safetensors").rename(tmp_path / "pickled/pytorch_model.bin")
    shutil.copytree(tied.a, tmp_path / "kernel")
    config = json.loads((tied.a / "config.json").read_text()) | {"_attn_implementation": "org/kernel"}
    (tmp_path / "kernel/config.json").write_text(json.dumps(config))
    places = {"gone": tmp_path / "gone", "bare": models.b, "odd": models.a}
    places |= {"pickled": tmp_path / "pickled", "kernel": tmp_path / "kernel"}
    opened = Models({name: at(path) for name, path in places.items()}, 2, always_on())
    for name, reason in (
        ("gone", "gone cannot be loaded: .*/gone: is not a directory"),
        ("bare", "has no config.json"),
        ("odd", "odd cannot be loaded: .*attention heads"),
        ("pickled", "has no safetensors weights, and no others are loaded"),
        ("kernel", "wants code from a repository .*org/kernel.*, and none is run"),
    ):
        with pytest.raises(UnmeasurableError, match=reason):
            opened.open(name)


def test_inputs_of_a_model_whose_weights_stay_on_the_disk_go_to_the_cpu(tied: SimpleNamespace, tmp_path: Path) -> None:
    from transformers import Qwen2ForCausalLM

    lazily = Qwen2ForCausalLM.from_pretrained(tied.a, device_map={"": "disk"}, offload_folder=str(tmp_path))
    opened = Models({"lazy": (lazily, tied.words), "a": at(tied.a)}, 2, always_on())
    assert opened.open("lazy").model.device.type == "meta"
    assert opened.open("lazy").device.type == "cpu"
    assert opened.open("a").device.type == "cpu"
