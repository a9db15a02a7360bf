"""Merges of real transformers models: they load without a word that the donor's own directory does not give, and compute alike."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from inputs.tiny_models import load, logits, make_tiny
from modelmerger import MergeConfig, merge, verify
from safetensors.torch import load_file

Weights = dict[str, np.ndarray]


def weights(directory: Path) -> Weights:
    return {name: tensor.double().numpy() for name, tensor in load_file(directory / "model.safetensors").items()}


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    norms = np.linalg.norm(a), np.linalg.norm(b)
    angle = np.arccos(np.clip(np.sum(a * b) / norms[0] / norms[1], -1, 1))
    direction = (np.sin((1 - t) * angle) * a / norms[0] + np.sin(t * angle) * b / norms[1]) / np.sin(angle)
    return ((1 - t) * norms[0] + t * norms[1]) * direction


STRATEGIES = {
    "weighted": lambda base, a, b: (3 * a + b) / 4,
    "sequential": lambda base, a, b: 0.75 * a + 0.25 * b,
    "task_arithmetic": lambda base, a, b: base + 0.5 * (0.75 * (a - base) - 0.25 * (b - base)),
    "slerp": lambda base, a, b: slerp(a, b, 0.25),
}


def config(strategy: str, models: SimpleNamespace, output: Path, **options: Any) -> dict[str, Any]:
    first, second = {"path": str(models.a), "weight": 0.75}, {"path": str(models.b), "weight": 0.25}
    if strategy == "sequential":
        first["weight"] = 1.0
    made = {"strategy": strategy, "models": [first, second], "output_path": str(output), "options": options}
    if strategy == "task_arithmetic":
        second["operation"] = "subtract"
        options["scaling_factor"] = 0.5
        made["base_model"] = str(models.base)
    return made


@pytest.mark.parametrize("kind", ["tied", "untied"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_merged_model_loads_in_silence_generates_and_has_the_exact_logits(
    request: pytest.FixtureRequest, tmp_path: Path, strategy: str, kind: str
) -> None:
    """C6. The reference is merged in float64 by numpy, rounded once, and put into the same class."""
    models = request.getfixturevalue(kind)
    output = tmp_path / "merged"
    merge(MergeConfig(**config(strategy, models, output, max_shard_size=3000 if strategy == "slerp" else "5GB")))
    donor = models.base if strategy == "task_arithmetic" else models.a
    sources = [weights(models.base), weights(models.a), weights(models.b)]
    exact = {name: STRATEGIES[strategy](*(source[name] for source in sources)) for name in sources[0]}

    model, said = load(output)
    reference, said_of_donor = load(donor)
    missing, unexpected = reference.load_state_dict({k: torch.from_numpy(v) for k, v in exact.items()}, strict=False)

    assert said == said_of_donor
    assert (missing, unexpected) == ([] if kind == "untied" else ["lm_head.weight"], [])
    assert (len(list(output.glob("*.safetensors"))) > 1) == (strategy == "slerp")
    assert torch.equal(logits(model), logits(reference))
    assert not torch.equal(logits(model), logits(load(models.b)[0]))
    generated = model.generate(torch.tensor([[3, 4]]), max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert generated.shape[1] > 2
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == (kind == "tied")
    verify(output)


def test_a_tied_model_merged_into_an_untied_one_loads_in_silence(
    tied: SimpleNamespace, untied: SimpleNamespace, tmp_path: Path
) -> None:
    """C6: config equals file."""
    models = SimpleNamespace(a=untied.a, b=tied.b)
    merge(MergeConfig(**config("weighted", models, tmp_path / "merged")))

    model, said = load(tmp_path / "merged")

    assert said == load(untied.a)[1]
    ours, theirs = load_file(untied.a / "model.safetensors"), load_file(tied.b / "model.safetensors")
    exact = 0.75 * ours["lm_head.weight"].double() + 0.25 * theirs["model.embed_tokens.weight"].double()
    assert torch.equal(model.lm_head.weight, exact.float())
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"] is False


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_config_names_the_dtype_that_was_written(tied: SimpleNamespace, tmp_path: Path, dtype: str) -> None:
    merge(MergeConfig(**config("weighted", tied, tmp_path / "merged", torch_dtype=dtype)))

    model, _ = load(tmp_path / "merged")

    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == dtype
    assert {str(parameter.dtype) for parameter in model.parameters()} == {f"torch.{dtype}"}


def test_bfloat16_models_merge_to_half_a_unit_in_the_last_place(tmp_path: Path) -> None:
    models = make_tiny(tmp_path, tied=True, dtype=torch.bfloat16)
    merge(MergeConfig(**config("weighted", models, tmp_path / "merged")))

    merged, (a, b) = weights(tmp_path / "merged"), (weights(models.a), weights(models.b))

    for name, values in merged.items():
        exact = 0.75 * a[name] + 0.25 * b[name]
        unit = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(exact), 1e-30))) - 7)
        assert np.all(np.abs(values - exact) <= 0.5 * unit * (1 + 2**-10)), name


def test_the_merged_tokenizer_is_the_donors(tied: SimpleNamespace, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    merge(MergeConfig(**config("weighted", tied, tmp_path / "merged")))

    merged, donors = (AutoTokenizer.from_pretrained(path) for path in (tmp_path / "merged", tied.a))

    text = "مرحبا، كيف حالك اليوم؟ the cat"
    assert merged(text)["input_ids"] == donors(text)["input_ids"]
    assert merged.chat_template == donors.chat_template == tied.words.chat_template
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "merged" / name).read_bytes() == (tied.a / name).read_bytes(), name


def test_the_model_card_is_one_to_the_hub_library(tied: SimpleNamespace, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    merge(MergeConfig(**config("task_arithmetic", tied, tmp_path / "merged")))

    card = ModelCard.load(tmp_path / "merged" / "README.md")

    assert card.data.base_model == ["a", "b", "base"]
    assert card.data.tags == ["merge", "modelmerger"]
    assert card.data.library_name == "transformers"
    assert "task&#95;arithmetic" in card.text
