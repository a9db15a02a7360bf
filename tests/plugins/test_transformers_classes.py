"""Which classes transformers has, as far as its source says it without being imported."""

import subprocess
import sys

import pytest
from modelmerger_plugins.transformers_classes import is_known, tied_by_class, unnamed

KNOWN = {
    "LlamaForCausalLM": "llama",
    "T5EncoderModel": "t5",
    "GPT2LMHeadModel": "gpt2",
    "CLIPTextModelWithProjection": "clip",  # in no auto class
    "Qwen2VLForConditionalGeneration": "qwen2_vl",
}
UNKNOWN = {
    "NoSuchModel": "llama",
    "LlavaQwenForCausalLM": "llava_qwen",
    "set_seed": None,
    "": "",
    "../x": "..",
    "a b": 3,
}


@pytest.mark.parametrize("name", KNOWN)
def test_known(name: str) -> None:
    import transformers

    assert is_known(name, KNOWN[name])
    assert issubclass(getattr(transformers, name), transformers.PreTrainedModel)


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown(name: str) -> None:
    assert not is_known(name, UNKNOWN[name])


def tie(architecture: str, model_type: str) -> dict[str, str]:
    return dict(tied_by_class({"architectures": [architecture], "model_type": model_type}))


@pytest.mark.parametrize("name", ["WhisperForConditionalGeneration", "BertForMaskedLM", "T5ForConditionalGeneration"])
def test_what_a_class_ties_is_what_it_says(name: str) -> None:
    import transformers

    found = getattr(transformers, name)
    assert tie(name, found.config_class.model_type) == found._tied_weights_keys


def test_what_ties_nothing_or_is_unknown() -> None:
    assert tie("BertModel", "bert") == tie("NoSuchModel", "bert") == tie("", "") == tie("../x", "..") == {}
    assert tied_by_class({}) == {}


def test_a_class_may_do_without_packages_that_its_source_does_not_name() -> None:
    packages = ["accelerate", "scipy"]
    assert unnamed(packages, {"model_type": "llama"}) == packages
    assert unnamed(packages, {"model_type": "fnet"}) == ["accelerate"]
    assert unnamed(packages, {"model_type": "no_such"}) == []


def test_transformers_is_not_imported() -> None:
    code = (
        "import sys; from modelmerger_plugins.transformers_classes import is_known; "
        "assert is_known('LlamaForCausalLM', 'llama'); print({'torch', 'transformers'} & {*sys.modules})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
