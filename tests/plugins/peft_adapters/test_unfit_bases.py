"""Bases that an adapter does not fit: one problem a cause, which says what to do."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelmerger import InputError, Problem
from plugins.peft_adapters.handmade import PREFIX, write_adapter, write_base
from plugins.peft_adapters.spoiling import change, merger
from safetensors.numpy import load_file, save_file

Tensors = dict[str, np.ndarray]
LAYERS = {f"model.layers.{i}.self_attn.{name}": (6, 8) for i in range(2) for name in ("q_proj", "v_proj")}
SHAPES = {"model.embed_tokens": (10, 8), "lm_head": (10, 8), **LAYERS}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base", SHAPES)


def adapter_of(base: Path, shapes: Mapping[str, tuple[int, int]], more: Tensors | None = None, **fields: Any) -> Path:
    """A LoRA of some modules, and tensors that were trained whole."""
    path = write_adapter(base.parent / "adapter", base, shapes, 1).path
    rewrite(path / "adapter_model.safetensors", lambda tensors: tensors.update(more or {}))
    change(path, **fields)
    return path


def rewrite(file: Path, edit: Callable[[Tensors], Any]) -> None:
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def only_problem(adapter: Path, **config: Any) -> Problem:
    with pytest.raises(InputError) as refusal:
        merger(adapter, **config).check_compatibility()
    (problem,) = refusal.value.problems
    assert len(str(problem)) <= 300
    return problem


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def resized(rows: int) -> list[tuple[dict[str, tuple[int, int]], Tensors, dict[str, Any]]]:
    """What an adapter may hold of an embedding and an LM head of so many rows."""
    embedding, head = f"{PREFIX}model.embed_tokens", f"{PREFIX}lm_head"
    factors = {f"{embedding}.lora_embedding_A": zeros(2, rows), f"{embedding}.lora_embedding_B": zeros(8, 2)}
    tokens = {f"{embedding}.token_adapter.trainable_tokens_delta": zeros(2, 8)}
    return [
        (LAYERS, {f"{embedding}.weight": zeros(rows, 8), f"{head}.weight": zeros(rows, 8)}, {}),
        (LAYERS, {f"{embedding}.base_layer.weight": zeros(rows, 8)}, {}),
        (LAYERS, factors, {}),
        ({"lm_head": (rows, 8)}, {}, {}),
        (LAYERS, tokens, {"trainable_token_indices": [3, rows - 1]}),
    ]


@pytest.mark.parametrize("number", range(5))
def test_a_resized_vocabulary_is_named_with_the_way_out(base: Path, number: int) -> None:
    """Whole matrices, factors of both, or rows of tokens that the base does not have."""
    shapes, more, fields = resized(12)[number]
    problem = only_problem(adapter_of(base, shapes, more, **fields))
    assert problem.message == (
        "was trained with a vocabulary of 12 rows, and 'base' has 10. Resize the base (resize_token_embeddings(12)), "
        "save it, and give that as peft_config.base_model_path."
    )


def test_a_smaller_vocabulary_likewise(base: Path) -> None:
    shapes, more, fields = resized(9)[0]
    assert "vocabulary of 9 rows, and 'base' has 10" in only_problem(adapter_of(base, shapes, more, **fields)).message


def quantise(names: Callable[[str], Tensors]) -> Callable[[Tensors], None]:
    """Replaces the matrices of the layers."""

    def edit(tensors: Tensors) -> None:
        for module in LAYERS:
            del tensors[f"{module}.weight"]
            tensors.update(names(module))

    return edit


QUANTISED: dict[str, tuple[Callable[[str], Tensors], dict[str, Any] | None, str]] = {
    "bitsandbytes": (
        lambda module: {f"{module}.weight": np.zeros((24, 1), np.uint8), f"{module}.weight.absmax": zeros(4)},
        {"load_in_4bit": True, "quant_method": "bitsandbytes"},
        "quantised (bitsandbytes)",
    ),
    "8 bits": (lambda module: {f"{module}.weight": np.zeros((6, 8), np.int8), f"{module}.SCB": zeros(6)}, None, ""),
    "gptq": (
        lambda module: {f"{module}.qweight": np.zeros((1, 6), np.int32), f"{module}.scales": zeros(1, 6)},
        {"quant_method": "gptq", "bits": 4},
        "quantised (gptq)",
    ),
    "compressed": (lambda module: {f"{module}.weight_packed": np.zeros((6, 1), np.int32)}, None, ""),
}


@pytest.mark.parametrize("name", QUANTISED)
def test_a_quantised_base_asks_for_the_one_in_16_bits(base: Path, name: str) -> None:
    names, config, said = QUANTISED[name]
    rewrite(base / "model.safetensors", quantise(names))
    (base / "config.json").write_text(json.dumps({"quantization_config": config} if config else {}))
    problem = only_problem(adapter_of(base, LAYERS))
    assert f"changes weights that 'base' stores quantised{said.removeprefix('quantised')}" in problem.message
    assert "Give the 16-bit model that it was made from as peft_config.base_model_path" in problem.message


@pytest.mark.parametrize(("scale", "refused"), [("weight_scale_inv", True), ("weight_scale", True), ("other", False)])
def test_floats_of_8_bits_that_have_scales_are_quantised(base: Path, scale: str, refused: bool) -> None:
    """Nothing can be added to numbers that a scale multiplies; without scales they are what they are."""
    import torch
    from safetensors.torch import load_file as load
    from safetensors.torch import save_file as save

    tensors = {name: t.to(torch.float8_e4m3fn) for name, t in load(base / "model.safetensors").items()}
    tensors |= {f"{module}.{scale}": torch.ones(1, 1) for module in LAYERS}
    save(tensors, base / "model.safetensors", metadata={"format": "pt"})
    adapter = adapter_of(base, LAYERS)
    if refused:
        assert "stores quantised. Give the 16-bit model" in only_problem(adapter).message
    else:
        merger(adapter).check_compatibility()


EXPERTS = "model.layers.0.mlp.experts"
OF_EXPERTS: dict[str, Tensors] = {
    "in one": {
        f"{EXPERTS}.down_proj_blocks": np.zeros((2, 6, 1, 16), np.uint8),
        f"{EXPERTS}.down_proj_scales": zeros(2),
    },
    "each": {f"{EXPERTS}.{i}.down_proj.weight": np.zeros((24, 1), np.uint8) for i in range(2)},
}


@pytest.mark.parametrize("name", OF_EXPERTS)
def test_quantised_experts_likewise(base: Path, name: str) -> None:
    """Of GPT-OSS in MXFP4, and of bitsandbytes."""
    rewrite(base / "model.safetensors", lambda tensors: tensors.update(OF_EXPERTS[name]))
    factors = {f"{PREFIX}{EXPERTS}.lora_A.weight": zeros(4, 8), f"{PREFIX}{EXPERTS}.lora_B.weight": zeros(6, 4)}
    problem = only_problem(adapter_of(base, LAYERS, factors, target_parameters=["down_proj"]))
    assert "changes weights that 'base' stores quantised. Give the 16-bit model" in problem.message


HEADS = [
    ("SEQ_CLS", "score.weight", "has a head for a task (score), which 'base' has not", "ForSequenceClassification"),
    (None, "score.weight", "(score)", "AutoModelForSequenceClassification"),
    (None, "classifier.dense.weight", "(classifier)", "AutoModelForSequenceClassification"),
    ("TOKEN_CLS", "classifier.weight", "(classifier)", "AutoModelForTokenClassification"),
    ("QUESTION_ANS", "qa_outputs.weight", "(qa_outputs)", "AutoModelForQuestionAnswering"),
    ("CAUSAL_LM", "v_head.summary.weight", "has a head (v_head)", "Give the model with that head as peft_config"),
]


@pytest.mark.parametrize(("task", "name", "said", "advice"), HEADS)
def test_a_head_that_the_base_has_not(base: Path, task: str | None, name: str, said: str, advice: str) -> None:
    adapter = adapter_of(base, LAYERS, {f"{PREFIX}{name}": zeros(3, 8)}, task_type=task)
    problem = only_problem(adapter)
    assert said in problem.message
    assert advice in problem.message


@pytest.mark.parametrize(
    ("modules", "there"),
    [
        (("q_proj", "v_proj"), "qkv_proj"),
        (("qkv_proj",), "q_proj and k_proj and v_proj"),
        (("up_proj",), "gate_up_proj"),
    ],
    ids=str,
)
def test_a_base_whose_matrices_are_joined_or_apart_is_told(
    tmp_path: Path, modules: tuple[str, ...], there: str
) -> None:
    """As Phi-3 and the same model in Llama's form."""
    held = {f"model.layers.0.self_attn.{name}": (8, 8) for name in there.split(" and ")}
    problem = only_problem(
        adapter_of(
            write_base(tmp_path / "base", held), {f"model.layers.0.self_attn.{name}": (8, 8) for name in modules}
        )
    )
    assert problem.message.startswith(
        f"changes {modules[0]}, and 'base' has {there}: the adapter was trained on a model"
    )
    assert "Give that model as peft_config.base_model_path." in problem.message


def test_factors_that_peft_does_not_know_are_told(base: Path) -> None:
    module = f"{PREFIX}model.layers.0.self_attn.q_proj"
    adapter = adapter_of(base, {}, {f"{module}.lora_a.weight": zeros(2, 8), f"{module}.lora_b.weight": zeros(6, 2)})
    assert "has a name that PEFT does not write: it calls factors lora_A.weight" in only_problem(adapter).message


def test_a_head_of_other_labels_asks_for_as_many(base: Path) -> None:
    rewrite(base / "model.safetensors", lambda tensors: tensors.update({"score.weight": zeros(2, 8)}))
    adapter = adapter_of(base, LAYERS, {f"{PREFIX}score.weight": zeros(3, 8)}, task_type="SEQ_CLS")
    assert only_problem(adapter).message == (
        "has a head of 3 labels, and that of 'base' has 2. Save the base with num_labels=3 (from_pretrained, "
        "save_pretrained; the adapter's own head replaces the new one), and give that as peft_config.base_model_path."
    )


def test_factors_that_zero_3_left_ungathered(base: Path) -> None:
    """One problem, and none of what follows from it."""
    adapter = adapter_of(base, LAYERS)
    file = adapter / "adapter_model.safetensors"
    rewrite(file, lambda tensors: tensors.update({key: zeros(0) for key in tensors if "lora_A" in key}))
    problem = only_problem(adapter)
    assert (problem.where, problem.tensor) == (str(file), "")
    assert "DeepSpeed ZeRO-3 saves what it does not gather. Run zero_to_fp32.py" in problem.message


def test_a_base_that_zero_3_left_ungathered(base: Path) -> None:
    adapter = adapter_of(base, LAYERS)
    rewrite(base / "model.safetensors", lambda tensors: tensors.update(dict.fromkeys(tensors, zeros(0))))
    problem = only_problem(adapter)
    assert "changes weights of 'base' without elements, as DeepSpeed ZeRO-3" in problem.message
    assert "zero_to_fp32.py" in problem.message


def test_a_base_of_another_size_is_one_problem(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", dict.fromkeys(LAYERS, (12, 16)))
    problem = only_problem(adapter_of(base, LAYERS))
    said = "is for a matrix of shape [6, 8], and 'base' has [12, 16] (7 more like it). Is it the right base?"
    assert problem.message == said


def test_the_key_of_a_merge_within_the_merge_is_named_whole(base: Path) -> None:
    shapes, more, fields = resized(12)[0]
    adapter = adapter_of(base, shapes, more, **fields)
    inner = {"strategy": "weighted", "models": [{"path": str(adapter)}]}
    with pytest.raises(InputError, match=r"as models\[0\]\.merge\.peft_config\.base_model_path"):
        from modelmerger import MergeConfig, ModelMerger

        ModelMerger(MergeConfig(strategy="weighted", models=[{"merge": inner}])).check_compatibility()
