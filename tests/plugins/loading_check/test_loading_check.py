"""Merges whose output no class loads are refused, with one line for each cause; those that load are not."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers.modeling_utils
from conftest import write_model
from modelmerger import MergeConfig, ModelCompatibilityError, ModelMerger, Problem, merge

from tests.plugins.loading_check.conftest import CONFIG, HIDDEN, WORDS, llama

assert transformers.modeling_utils.__name__ in sys.modules  # so that no test here waits for another process
Merging = Callable[..., dict[str, Any]]


def check(config: dict[str, Any]) -> list[Problem]:
    """What is said about loading the output, and about nothing else."""
    found = ModelMerger(MergeConfig(**config)).check_compatibility()
    return [problem for problem in found if "load" in problem.message or "Llama" in problem.message]


def refusal(config: dict[str, Any]) -> list[str]:
    with pytest.raises(ModelCompatibilityError) as caught:
        check(config)
    assert all(len(line) <= 300 for line in caught.value.lines())
    return [problem.message for problem in caught.value.problems]


def test_a_model_that_loads_is_no_news(merging: Merging) -> None:
    assert check(merging()) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_dtype_and_the_files_do_not_matter(merging: Merging, dtype: torch.dtype) -> None:
    tensors = llama(dtype=dtype)
    assert check(merging(tensors, use_safetensors=False, max_shard_size=500)) == []


def test_a_tied_head_may_be_left_out_or_written(merging: Merging) -> None:
    tied = CONFIG | {"tie_word_embeddings": True}
    assert check(merging(llama(head=False), tied)) == []
    both = llama()
    both["lm_head.weight"] = both["model.embed_tokens.weight"].clone()
    assert check(merging(both, tied)) == []


def test_what_transformers_ignores_is_no_news(merging: Merging) -> None:
    ignored = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(2) for layer in range(2)}
    assert check(merging(llama() | ignored)) == []


@pytest.mark.parametrize(
    "config", [{}, {"architectures": []}, {"architectures": [7]}, {"architectures": None}], ids=str
)
def test_without_a_class_nothing_is_asked(merging: Merging, config: dict[str, Any]) -> None:
    assert check(merging({"w": torch.ones(2)}, config)) == []


def test_that_a_class_is_unknown_is_a_note(merging: Merging) -> None:
    (note,) = check(merging({"w": torch.ones(2)}, {"architectures": ["NoSuchModel"], "num_hidden_layers": 9}))
    assert note.message == "transformers has no class NoSuchModel, so it is not known whether the merged model loads."
    assert note.severity == "note"


def test_quantised_weights_are_a_note(merging: Merging) -> None:
    packed = {"model.layers.0.mlp.up_proj.weight": torch.zeros(8, 2, dtype=torch.uint8)}
    found = check(merging(packed, CONFIG | {"quantization_config": {"quant_method": "bitsandbytes"}}))
    assert ("the weights are quantised, so it is not known whether the merged model loads.", "note") in [
        (problem.message, problem.severity) for problem in found
    ]


def test_a_vocabulary_that_the_config_has_otherwise_is_one_problem(merging: Merging) -> None:
    (message,) = refusal(merging(None, CONFIG | {"intermediate_size": 10}))
    assert "its shape is [8, 12], and LlamaForCausalLM as config.json has it wants [8, 10]" in message
    assert "5 other tensors likewise" in message


def test_each_thing_that_the_config_has_otherwise_is_a_problem(merging: Merging) -> None:
    found = refusal(merging(None, CONFIG | {"intermediate_size": 10, "num_key_value_heads": 2}))
    assert len(found) == 2


def test_layers_are_counted(merging: Merging) -> None:
    (message,) = refusal(merging(llama(1) | {"model.layers.1.mlp.up_proj.weight": torch.ones(12, 8)}))
    assert "LlamaForCausalLM needs 8 tensors that the merged model lacks, and 'a' does too" in message


def test_a_layer_that_is_missing_altogether(merging: Merging) -> None:
    """In a stack beside others, of which no sign can tell: the decoder of an encoder and decoder."""
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 12, "num_heads": 2, "vocab_size": 20, "num_layers": 1}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, num_decoder_layers=2))
    tensors = {name: values.detach().clone() for name, values in model.named_parameters()}
    config = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", **sizes}
    assert check(merging(tensors, config | {"num_decoder_layers": 2})) == []
    (message,) = refusal(merging(tensors, config | {"num_decoder_layers": 3}))
    assert message.startswith("config.json makes 3 layers of 'decoder.block', and the weights lack layer 2. Correct")
    (message,) = refusal(merging(tensors, config | {"num_decoder_layers": 1}))
    assert message.startswith("config.json makes 1 layer of 'decoder.block', and the weights have layer 1 as well.")


def test_a_part_in_front_of_all_names_comes_off_whatever_it_is(merging: Merging) -> None:
    assert check(merging({f"policy.{name}": values for name, values in llama().items()})) == []


def test_a_part_in_front_of_some_names_is_no_wrapper(merging: Merging) -> None:
    found = {name if "layers.0" in name else f"policy.{name}": values for name, values in llama().items()}
    (message,) = refusal(merging(found))
    assert "'policy." in message


def test_a_base_model_alone_lacks_its_head(merging: Merging) -> None:
    """As transformers loads it, with or without the prefix of the base."""
    bare = {name.removeprefix("model."): values for name, values in llama().items()}
    assert check(merging(bare)) == []
    assert check(merging(bare, CONFIG | {"architectures": ["LlamaModel"]}))[0].severity == "warning"


def test_what_the_donor_lacks_outside_its_layers_is_a_warning(merging: Merging) -> None:
    classifier = CONFIG | {"architectures": ["LlamaForSequenceClassification"], "num_labels": 3}
    missing, unexpected = check(merging(llama(), classifier))
    assert (missing.severity, unexpected.severity) == ("warning", "warning")
    assert "needs 1 tensor that the merged model lacks, and 'a' does too: 'score.weight'" in missing.message
    assert "has no place for 1 tensor of the merged model, which 'a' has too: 'lm_head.weight'" in unexpected.message


def test_what_the_donor_has_and_the_merge_loses_is_an_error(merging: Merging, tmp_path: Path) -> None:
    classifier = CONFIG | {"architectures": ["LlamaForSequenceClassification"], "num_labels": 3}
    config = merging(llama(head=False) | {"score.weight": torch.ones(3, HIDDEN)}, classifier, missing_tensors="union")
    assert check(config) == []
    write_model(tmp_path / "b", llama() | {"value.weight": torch.ones(2)}, classifier)
    (message,) = refusal(config | {"models": config["models"]})
    assert "has no place for" in message
    assert "of the merged model" in message
    assert "'a' has too" not in message


def test_a_config_that_makes_no_model(merging: Merging) -> None:
    (message,) = refusal(merging(None, CONFIG | {"num_attention_heads": 3}))
    assert message.startswith("transformers cannot make a LlamaForCausalLM of the merged config.json: ")


def test_what_cannot_be_known_is_a_warning(merging: Merging, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise ImportError("timm is not installed")

    monkeypatch.setattr(transformers.LlamaForCausalLM, "__init__", absent)
    (warning,) = check(merging())
    assert warning.severity == "warning"
    assert warning.message == (
        "it is not known whether transformers loads the merged model: ImportError: timm is not installed. "
        "Give options.check_loading: false to merge without knowing."
    )
    config = merging()
    config["options"] = {"check_loading": True}
    assert refusal(config) == [warning.message]


def test_adapters_are_not_looked_at(merging: Merging, tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", llama(), CONFIG)
    for name in "cd":
        folder = write_model(
            tmp_path / name,
            {
                f"base_model.model.model.layers.0.self_attn.q_proj.lora_{part}.weight": torch.ones(shape)
                for part, shape in {"A": (2, HIDDEN), "B": (HIDDEN, 2)}.items()
            },
            None,
        )
        (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
        told = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
        (folder / "adapter_config.json").write_text(json.dumps(told))
    config = {
        "strategy": "weighted",
        "models": [{"path": str(tmp_path / name)} for name in "cd"],
        "peft_config": {"base_model_path": str(base), "merge_adapters": True},
        "output_path": str(tmp_path / "merged"),
    }
    assert [problem for problem in check(config) if "load" in problem.message] == []
    merge(MergeConfig(**config, options={"check_loading": True}))


def test_the_model_that_comes_back_is_looked_at_before_it_is_merged(merging: Merging, tmp_path: Path) -> None:
    config = merging(None, CONFIG | {"vocab_size": WORDS, "intermediate_size": 10})
    with pytest.raises(ModelCompatibilityError, match=r"wants \[8, 10\]"):
        ModelMerger(MergeConfig(**config)).merge()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    del config["output_path"]
    with pytest.raises(ModelCompatibilityError, match=r"wants \[8, 10\]"):
        ModelMerger(MergeConfig(**config)).merge()


def test_nothing_is_heard_of_the_model_that_is_built(merging: Merging, capfd: pytest.CaptureFixture[str]) -> None:
    check(merging())
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another process answers, although this one could."""
    monkeypatch.setattr("modelmerger_plugins.loading_check.COSTS", ("no_such_module",))
    return iter(())


@pytest.mark.usefixtures("process")
def test_another_process_says_the_same(merging: Merging, command: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "merge.json").write_text(json.dumps(merging(None, CONFIG | {"intermediate_size": 10})))
    done = command("check", tmp_path / "merge.json")
    (line,) = done.err.splitlines()
    assert (done.status, "wants [8, 10]" in line) == (3, True)
