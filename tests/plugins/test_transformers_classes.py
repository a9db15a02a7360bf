"""Which classes transformers has, as far as its source says it without being imported."""

import subprocess
import sys

import pytest
from modelmerger_plugins.transformers_classes import is_known, unnamed

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
