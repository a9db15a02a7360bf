"""Modules that are wrapped, given as objects: merged as the model inside, under the names that its files have."""

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from modelmerger import MergeConfig, ModelMerger, merge_tensors
from modelmerger.validation.saved_names import save_pretrained
from modelmerger_plugins.names import name_saved_tensors
from safetensors.torch import load_file
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper


class Engine(torch.nn.Module):
    """As DeepSpeed's, and other data parallelism."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module


class Sharded(torch.nn.Module):
    """As FSDP's, for its names."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self._fsdp_wrapped_module = module


def in_layers(wrap: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def wrapped(model: Any) -> Any:
        for i, layer in enumerate(model.model.layers):
            model.model.layers[i] = wrap(layer)
        return model

    return wrapped


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "compiled": torch.compile,
    "compiled layers": in_layers(torch.compile),
    "checkpointed layers": in_layers(checkpoint_wrapper),
    "engine": Engine,
    "engine of compiled": lambda model: Engine(torch.compile(model)),
    "sharded": lambda model: Sharded(in_layers(Sharded)(model)),
    "parallel": torch.nn.DataParallel,
}


@pytest.fixture(scope="module")
def plain(untied: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("plain")
    a, b = (AutoModelForCausalLM.from_pretrained(getattr(untied, name)) for name in "ab")
    ModelMerger(config([untied.a, untied.b], folder / "merged")).merge()
    return SimpleNamespace(a=a, b=b, path=untied.b, merged=load_file(folder / "merged/model.safetensors"))


def config(models: list[Any], output: Path | None) -> MergeConfig:
    entries = [{"path": model, "weight": 0.5 + i, "name": f"m{i}"} for i, model in enumerate(models)]
    return MergeConfig(strategy="weighted", models=entries, output_path=None if output is None else str(output))


@pytest.mark.parametrize("kind", WRAPPERS)
def test_wrapped_modules_are_published_as_what_is_in_them(plain: SimpleNamespace, tmp_path: Path, kind: str) -> None:
    wrapped = WRAPPERS[kind](copy.deepcopy(plain.a))
    model = ModelMerger(config([wrapped, str(plain.path)], tmp_path / "merged")).merge()
    assert type(model) is type(plain.a)  # it has the config of the model in the wrapper
    found = load_file(tmp_path / "merged/model.safetensors")
    assert found.keys() == plain.merged.keys()
    assert all(torch.equal(found[name], plain.merged[name]) for name in found)


@pytest.mark.parametrize("kind", ["compiled layers", "engine"])
def test_both_are_wrapped_and_nothing_is_written(plain: SimpleNamespace, kind: str) -> None:
    models = [WRAPPERS[kind](copy.deepcopy(model)) for model in (plain.a, plain.b)]
    merger = ModelMerger(config(models, None))
    found = merger.merge().state_dict()
    assert found.keys() == plain.merged.keys()
    assert all(torch.equal(found[name], plain.merged[name]) for name in found)


@pytest.mark.parametrize("kind", ["compiled layers", "engine"])
def test_a_wrapped_module_takes_the_result_under_its_own_names(plain: SimpleNamespace, kind: str) -> None:
    models = [WRAPPERS[kind](copy.deepcopy(model)) for model in (plain.a, plain.b)]
    out = WRAPPERS[kind](copy.deepcopy(plain.a))
    merge_tensors("weighted", models, weights=[0.5, 1.5], out=out)
    values = list(plain.merged.values())
    assert all(any(torch.equal(tensor, value) for value in values) for tensor in out.state_dict().values())


@pytest.mark.parametrize("kind", WRAPPERS)
def test_the_returned_model_is_saved_from_a_wrapper_too(plain: SimpleNamespace, tmp_path: Path, kind: str) -> None:
    merger = ModelMerger(config([plain.a, plain.b], None))
    merger.save_merged_model(WRAPPERS[kind](merger.merge()), tmp_path / "saved")
    saved = load_file(tmp_path / "saved/model.safetensors")
    assert saved.keys() == plain.merged.keys()
    assert all(torch.equal(saved[name], plain.merged[name]) for name in saved)


def test_an_adapter_in_wrapped_layers_is_saved_with_its_own_names(plain: SimpleNamespace, tmp_path: Path) -> None:
    import peft

    adapted: Any = peft.get_peft_model(copy.deepcopy(plain.a), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    adapted.save_pretrained(tmp_path / "plain")
    in_layers(torch.compile)(adapted.base_model.model)

    save_pretrained(adapted, tmp_path / "saved", name_saved_tensors, 1 << 30)

    found, expected = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("saved", "plain"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_what_a_wrapped_model_of_experts_saves_is_converted(tmp_path: Path) -> None:
    import transformers

    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    model: Any = transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**sizes, **experts))
    model.save_pretrained(tmp_path / "plain")

    save_pretrained(in_layers(torch.compile)(model), tmp_path / "saved", name_saved_tensors, 1 << 30)

    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("saved", "plain"))
    assert "model.layers.0.mlp.experts.3.up_proj.weight" in expected
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
