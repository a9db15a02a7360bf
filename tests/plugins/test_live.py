"""Models in memory: read as their own `save_pretrained` would write them, merged with directories, and refused when they cannot be read."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import random_tensors
from faults.stopping import leave_unfinished
from inputs.tiny_models import load, logits, make_tiny, tied, untied
from modelmerger import (
    ConfigError,
    InputError,
    MergeConfig,
    ModelMerger,
    ModelReference,
    NumericError,
    check_model_compatibility,
    merge,
    verify,
)
from modelmerger.testing import settings_of
from modelmerger_plugins.live import load_model
from safetensors.torch import load_file

__all__ = ["tied", "untied"]
SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def opened(source: Any) -> Any:
    return load_model(ModelReference("<it in memory>", "model_0", "models[0].path", source))


def read(checkpoint: Any, name: str, start: int, stop: int) -> torch.Tensor:
    content = bytearray(checkpoint.tensors[name].span(start, stop)[1])
    checkpoint.read(name, start, stop, memoryview(content))
    dtype = {"F32": torch.float32, "BF16": torch.bfloat16, "I64": torch.int64}[checkpoint.tensors[name].dtype]
    return torch.frombuffer(content, dtype=dtype)


def merged(tmp_path: Path, *sources: Any, name: str = "merged", **config: Any) -> Path:
    models = [{"path": source if isinstance(source, (torch.nn.Module, dict)) else str(source)} for source in sources]
    output = tmp_path / name
    merge(MergeConfig(strategy="weighted", models=models, output_path=str(output), **config))
    verify(output)
    return output


@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_a_live_model_merges_as_its_directory_does(
    kind: str, tied: SimpleNamespace, untied: SimpleNamespace, tmp_path: Path
) -> None:
    paths = {"tied": tied, "untied": untied}[kind]
    live, _ = load(paths.a)

    from_memory = merged(tmp_path, live, paths.b, name="memory")
    from_disk = merged(tmp_path, paths.a, paths.b, name="disk")

    expected, found = load_file(from_disk / "model.safetensors"), load_file(from_memory / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    for name in ("config.json", "generation_config.json"):
        assert json.loads((from_memory / name).read_text()) == json.loads((from_disk / name).read_text())
    assert torch.equal(logits(load(from_memory)[0]), logits(load(from_disk)[0]))


def architectures() -> list[Any]:
    import transformers as t

    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
    return [
        t.Qwen2ForCausalLM(t.Qwen2Config(**SIZES)),
        t.Qwen3MoeForCausalLM(t.Qwen3MoeConfig(**SIZES, **experts)),
        t.MixtralForCausalLM(t.MixtralConfig(**SIZES, num_local_experts=2)),
        t.GPT2LMHeadModel(t.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2)),
        t.T5ForConditionalGeneration(t.T5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4)),
    ]


def test_names_and_numbers_are_those_that_save_pretrained_writes(tmp_path: Path) -> None:
    for model in architectures():
        folder = tmp_path / type(model).__name__
        model.save_pretrained(folder)
        written = load_file(folder / "model.safetensors")

        checkpoint = opened(model)

        assert checkpoint.tensors.keys() == written.keys(), type(model)
        for name, tensor in written.items():
            assert torch.equal(read(checkpoint, name, 0, tensor.numel()), tensor.reshape(-1)), name
        assert checkpoint.donor.config == json.loads((folder / "config.json").read_text())
        assert checkpoint.donor.generation == json.loads((folder / "generation_config.json").read_text())


def test_an_infinity_in_the_configs_of_a_live_model_is_kept(tmp_path: Path) -> None:
    import transformers as t

    limit = (0.0, float("inf"))
    sizes = {"num_heads": 4, "head_dim": 8, "hidden_size": 16, "state_size": 4, "n_groups": 1, "chunk_size": 8}
    model = t.Mamba2ForCausalLM(t.Mamba2Config(vocab_size=40, num_hidden_layers=1, time_step_limit=limit, **sizes))
    model.save_pretrained(tmp_path / "saved")

    output = merged(tmp_path, model, tmp_path / "saved")

    assert tuple(t.AutoConfig.from_pretrained(output).time_step_limit) == limit


def test_nothing_is_copied() -> None:
    tensor = torch.zeros(4, 4)
    checkpoint = opened({"t": tensor})

    tensor[1, 2] = 7

    assert read(checkpoint, "t", 6, 7).item() == 7


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(60).view(5, 12).t(),
        torch.arange(120).view(2, 3, 4, 5).permute(3, 1, 0, 2),
        torch.arange(40)[::2],
        torch.arange(24).view(4, 6)[:, 1:4],
        torch.arange(6).view(6, 1).expand(6, 5),
        torch.tensor(3),
        torch.arange(36).view(6, 6)[::2, ::3],
    ],
    ids=["transposed", "permuted", "strided", "narrow", "expanded", "scalar", "sparse rows"],
)
def test_any_part_of_any_view_can_be_read(tensor: torch.Tensor) -> None:
    checkpoint = opened({"t": tensor})
    flat = tensor.reshape(-1)

    for start in range(tensor.numel()):
        for stop in range(start + 1, tensor.numel() + 1):
            assert torch.equal(read(checkpoint, "t", start, stop), flat[start:stop]), (start, stop)


def test_a_tied_head_of_a_mapping_is_left_out_as_files_do(tied: SimpleNamespace, tmp_path: Path) -> None:
    state = load(tied.a)[0].state_dict()
    assert "lm_head.weight" in state

    found = load_file(merged(tmp_path, state, tied.b) / "model.safetensors")

    expected = load_file(merged(tmp_path, tied.a, tied.b, name="disk") / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_tied_live_model_stands_in_for_a_head_of_its_own(
    tied: SimpleNamespace, untied: SimpleNamespace, tmp_path: Path
) -> None:
    live, _ = load(tied.a)

    found = load_file(merged(tmp_path, untied.a, live) / "model.safetensors")

    mean = (load_file(untied.a / "model.safetensors")["lm_head.weight"] + live.lm_head.weight.detach()) / 2
    torch.testing.assert_close(found["lm_head.weight"], mean)


def test_mappings_and_modules_merge_and_are_named(tmp_path: Path) -> None:
    first, second, base = ({"t": torch.full((3, 2), value)} for value in (3.0, 5.0, 1.0))
    config = MergeConfig(
        strategy="task_arithmetic",
        models=[{"path": first, "weight": 0.5}, {"path": second, "weight": 0.25}],
        base_model=base,
        output_path=str(tmp_path / "merged"),
    )

    plan = ModelMerger(config).plan()
    report = merge(config)

    assert [model.name for model in plan.models] == ["model_0", "model_1", "base"]
    assert report.models == ["model_0", "model_1"]
    assert torch.equal(load_file(tmp_path / "merged" / "model.safetensors")["t"], torch.full((3, 2), 3.0))
    assert list(ModelMerger(config).load_models()) == ["model_0", "model_1", "base"]


def test_a_module_that_is_no_transformers_model(tmp_path: Path) -> None:
    layers = [torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)) for _ in range(2)]

    found = load_file(merged(tmp_path, *layers) / "model.safetensors")

    assert found.keys() == layers[0].state_dict().keys()
    torch.testing.assert_close(found["0.weight"], (layers[0][0].weight + layers[1][0].weight).detach() / 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile
def test_wrapped_modules_are_unwrapped() -> None:
    module = torch.nn.Linear(2, 2)

    wrapped = torch.nn.DataParallel(torch.compile(module))

    assert opened(wrapped).tensors.keys() == {"weight", "bias"}


def test_card_and_manifest_name_the_class_and_no_path(tied: SimpleNamespace, tmp_path: Path) -> None:
    output = merged(tmp_path, load(tied.a)[0], tied.b)

    manifest = json.loads((output / "modelmerger.json").read_text())
    card = (output / "README.md").read_text()
    assert manifest["sources"][0] == {"name": "model_0", "path": "<Qwen2ForCausalLM in memory>", "files": []}
    assert manifest["config"]["models"][0]["path"] == "<Qwen2ForCausalLM in memory>"
    head = card.split("---")[1]
    assert "base_model:\n- b\n" in head
    assert "in memory" not in head
    assert "<Qwen2ForCausalLM in memory>" in card
    assert "0x" not in card


def test_the_plan_names_the_numbers_of_live_models() -> None:
    tensors = random_tensors(0)

    def digest(source: dict[str, torch.Tensor]) -> str:
        return ModelMerger(MergeConfig(strategy="weighted", models=[{"path": source}])).plan().digest

    first = digest(tensors)
    assert digest({name: tensor.clone() for name, tensor in tensors.items()}) == first
    tensors["model.norm.weight"][3] += 1
    changed = digest(tensors)
    assert changed != first
    tensors["model.norm.weight"] = tensors["model.norm.weight"].view(4, 4)
    assert digest(tensors) not in (first, changed)


def test_an_unfinished_merge_of_other_numbers_is_not_resumed(tmp_path: Path) -> None:
    tensors = {"t": torch.ones(8), "u": torch.ones(8)}
    config = MergeConfig(strategy="weighted", models=[{"path": tensors}], output_path=str(tmp_path / "merged"))
    leave_unfinished(config)
    tensors["u"].fill_(2)

    report = merge(config)

    assert report.bytes_reused == 0
    assert any("another plan" in str(note) for note in report.notes)
    assert load_file(tmp_path / "merged" / "model.safetensors")["u"].tolist() == [2.0] * 8


def test_an_unfinished_merge_of_the_same_numbers_is_resumed(tmp_path: Path) -> None:
    config = MergeConfig(
        strategy="weighted", models=[{"path": {"t": torch.ones(8)}}], output_path=str(tmp_path / "merged")
    )
    leave_unfinished(config)
    config.models[0]["path"] = {"t": torch.ones(8)}

    assert merge(config).bytes_reused > 0


class Sharded(torch.Tensor):
    """Stands for a DTensor, and for quantised tensors of other libraries."""


def quantised() -> torch.nn.Module:
    module = torch.nn.Linear(2, 2)
    module.hf_quantizer = object()
    return module


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (torch.nn.Linear(2, 2, device="meta"), "weight: is on the meta device, so it has no numbers here."),
        ({"t": torch.ones(2, 2).to_sparse()}, "t: is not a plain tensor (sparse_coo)"),
        (
            {"t": torch.ones(2).as_subclass(Sharded)},
            "t: is not a plain tensor (Sharded): sharded, sparse or quantised.",
        ),
        ({"t": torch.ones(2, dtype=torch.complex128)}, "t: safetensors cannot store torch.complex128"),
        ({"t": torch.ones(2), "step": 3}, "step: holds a int here, not a tensor."),
        ({"t": torch.ones(2), 7: torch.ones(2)}, "has the key 7, and tensors have texts for names."),
        (torch.nn.ReLU(), "holds no tensor"),
        (quantised(), "is quantised. Dequantise it first"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_said(source: Any, words: str) -> None:
    config = MergeConfig(strategy="weighted", models=[{"path": source}])

    with pytest.raises(InputError) as refusal:
        ModelMerger(config).check_compatibility()

    assert words in str(refusal.value)
    assert str(refusal.value).startswith("model_0 <")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of peft
def test_a_model_with_adapters_is_refused(tied: SimpleNamespace) -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(load(tied.a)[0], LoraConfig(target_modules=["q_proj"]))

    with pytest.raises(InputError, match=r"has adapters in it\. Give what its merge_and_unload\(\) returns"):
        opened(adapted)
    assert opened(adapted.merge_and_unload()).tensors.keys() == opened(load(tied.a)[0]).tensors.keys()


def test_not_a_number_is_found_and_named() -> None:
    config = MergeConfig(strategy="weighted", models=[{"path": {"t": torch.tensor([1.0, float("nan")])}}])

    with pytest.raises(NumericError, match=r"model_0 <mapping of tensors in memory>: t: 'model_0' holds 1 NaN"):
        ModelMerger(config).merge()


def test_a_config_with_live_models_is_no_file() -> None:
    config = MergeConfig(strategy="weighted", models=[{"path": {"t": torch.ones(2)}}])

    with pytest.raises(ConfigError, match=r"models\[0\]\.path: is a model in memory, which no file can name"):
        config.to_yaml()


WITHOUT = "is a mapping without tensors. Give a path, or a mapping of names to tensors"
NO_MODELS: list[tuple[Any, str]] = [
    ({}, WITHOUT),
    ({"t": 1}, WITHOUT),
    (
        {"epoch": 3, "state_dict": {"t": torch.ones(2)}},
        "has no tensors of its own, but under 'state_dict'. Give what is",
    ),
    (
        {"t": np.ones(2)},
        "holds arrays of numpy, and a model in memory is a mapping to tensors. Make them with torch.from",
    ),
    ({"merge": {}}, "is a merge. Give it as 'merge', in place of 'path'"),
    (None, "must be a text"),
    (7, "must be a text"),
    (torch.ones(2), "must be a text"),
]


@pytest.mark.parametrize(("path", "said"), NO_MODELS, ids=str)
def test_other_objects_are_no_models(path: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"models\[0\]\.path: {re.escape(said)}"):
        MergeConfig(strategy="weighted", models=[{"path": path}])


@pytest.mark.parametrize("model", [torch.nn.Linear(2, 2), {"t": torch.ones(2, 2)}], ids=["module", "mapping"])
def test_a_model_in_the_place_of_its_entry_is_told(model: Any) -> None:
    said = r"\Amodels\[0\]: must be a mapping with a 'path', got <.* in memory>. Write it as {'path': …}\Z"
    with pytest.raises(ConfigError, match=said):
        MergeConfig(strategy="weighted", models=[model])
    with pytest.raises(ConfigError, match=said):
        check_model_compatibility([model])


def test_the_factors_of_an_adapter_are_no_model() -> None:
    factors = {f"base_model.model.q_proj.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
    config = MergeConfig(strategy="weighted", models=[{"path": factors}])

    with pytest.raises(
        InputError, match=r"holds the weights of an adapter \(lora_A, lora_B\) and of no model\. Give the"
    ):
        ModelMerger(config).merge()


def test_what_is_wrong_with_many_tensors_is_one_problem() -> None:
    model = torch.nn.Linear(2, 2, device="meta")
    with pytest.raises(InputError) as refusal:
        ModelMerger(MergeConfig(strategy="weighted", models=[{"path": model}])).merge()
    (problem,) = refusal.value.problems
    assert problem.message.endswith("Load the model, and do not offload it. So it is with 1 more.")


def test_an_average_over_a_training_is_the_model_in_it() -> None:
    model = torch.nn.Linear(2, 2)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    result = ModelMerger(MergeConfig(strategy="weighted", models=[{"path": averaged}])).merge()
    assert result.keys() == {"weight", "bias"}
    assert torch.equal(result["weight"], model.weight)


def test_the_given_config_is_left_as_it_was() -> None:
    tensors = {"t": torch.ones(2)}
    config = {"models": [{"path": tensors, "weight": 2.0}], "base_model": tensors}

    settings = settings_of(config | {"strategy": "task_arithmetic"})

    assert config == {"models": [{"path": tensors, "weight": 2.0}], "base_model": tensors}
    assert config["models"][0]["path"] is tensors
    assert settings.live == {"models[0].path": tensors, "base_model": tensors}
    assert [(model.path, model.weight) for model in settings.models] == [("<mapping of tensors in memory>", 2.0)]


def test_a_live_half_precision_model_keeps_its_dtype(tmp_path: Path) -> None:
    paths = make_tiny(tmp_path, tied=True, dtype=torch.bfloat16)

    output = merged(tmp_path, load(paths.a)[0], paths.b)

    assert {tensor.dtype for tensor in load_file(output / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((output / "config.json").read_text())["dtype"] == "bfloat16"
