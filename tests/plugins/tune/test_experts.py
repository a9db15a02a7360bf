"""Mixtures of experts: transformers joins the experts of a layer, and files have them one by one, or joined."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modelmerger_plugins.tune.evaluating import ByCoefficients, encoded, tokenizer_of
from modelmerger_plugins.tune.live.evaluator import Live
from modelmerger_plugins.tune.measured import per_token
from modelmerger_plugins.tune.opened import opened, read
from safetensors import safe_open
from safetensors.torch import save_file
from torch.func import functional_call
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM, Qwen2MoeConfig, Qwen2MoeForCausalLM

from tests.plugins.tune.conftest import NAMES, Make, lines_of, tokenizer

SIZES = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
MANY = 12  # more than ten, so that experts are in the order of their numbers and not of their names
CLASSES: dict[str, Any] = {
    "mixtral": (MixtralForCausalLM, MixtralConfig(**SIZES, num_local_experts=MANY, num_experts_per_tok=2)),
    "qwen2_moe": (
        Qwen2MoeForCausalLM,
        Qwen2MoeConfig(
            **SIZES,
            num_experts=MANY,
            num_experts_per_tok=3,
            moe_intermediate_size=20,
            shared_expert_intermediate_size=28,
        ),
    ),
}


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of each class, folders with `base`, `a`, `b` and `c`."""
    found = {}
    for kind, (cls, settings) in CLASSES.items():
        found[kind] = tmp_path_factory.mktemp(kind)
        torch.manual_seed(0)
        model = cls(settings)
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for name in ("base", *NAMES):
            far = 0.0 if name == "base" else 0.03
            model.load_state_dict({key: one + far * torch.randn_like(one) for key, one in start.items()})
            model.save_pretrained(found[kind] / name)
            tokenizer().save_pretrained(found[kind] / name)
    return found


def joined(folder: Path, experts: Path) -> Path:
    """The same models with files as the model in memory has its tensors."""
    for name in ("base", *NAMES):
        model = AutoModelForCausalLM.from_pretrained(experts / name)
        model.config.save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
        save_file(model.state_dict(), folder / name / "model.safetensors", metadata={"format": "pt"})
    return folder


def config_of(config: Make, folder: Path) -> dict[str, Any]:
    given = config(mark={"tune": [0, 3], "start": 1.0, "per": "model"})
    given["base_model"] = str(folder / "base")
    given["models"] = [one | {"path": str(folder / name)} for one, name in zip(given["models"], NAMES, strict=True)]
    given["tune"]["search"] |= {"dtype": "float64", "batch_tokens": 100}
    return given


def states(folder: Path) -> list[dict[str, torch.Tensor]]:
    """As transformers loads them, in float64."""
    return [dict(whole(folder / name).state_dict()) for name in (*NAMES, "base")]


def whole(folder: Path) -> Any:
    exact: dict[str, Any] = {"dtype": torch.float64, "experts_implementation": "eager"}
    return AutoModelForCausalLM.from_pretrained(folder, **exact).eval()


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("files", ["one by one", "joined"])
def test_losses_and_derivatives_are_those_of_autograd(
    config: Make, experts: dict[str, Path], tmp_path: Path, kind: str, files: str
) -> None:
    folder = experts[kind] if files == "one by one" else joined(tmp_path / "joined", experts[kind])
    with safe_open(folder / "a" / "model.safetensors", "pt") as file:
        assert any(".experts.11." in name for name in file.keys()) == (files == "one by one")  # noqa: SIM118
    found = opened(read(config_of(config, folder)), 10)
    lines = encoded({name: lines_of(name, 4) for name in NAMES}, tokenizer_of(found))
    vector = [0.5, 1.0, 1.5]
    nats, slopes = ByCoefficients(found).slopes(lines, vector)

    at = torch.tensor(vector, dtype=torch.float64, requires_grad=True)
    *models, base = states(experts[kind])
    merged = {
        name: one + 0.35 * sum(weight * (model[name] - one) for weight, model in zip(at, models, strict=True))
        for name, one in base.items()
    }
    model = whole(experts[kind] / "base")
    for split, own in lines.tokens.items():
        loss = torch.zeros((), dtype=torch.float64)
        for line in own:
            tokens = torch.tensor([[0, *line]])
            logits = functional_call(model, merged, (tokens,)).logits
            loss = loss + torch.nn.functional.cross_entropy(logits[0, :-1].double(), tokens[0, 1:], reduction="sum")
        loss = loss / sum(map(len, own))
        (wanted,) = torch.autograd.grad(loss, at, retain_graph=True)
        assert per_token(nats, lines)[split] == pytest.approx(float(loss.detach()), rel=1e-6)
        assert np.linalg.norm(slopes[split] - wanted.numpy()) <= 1e-5 * np.linalg.norm(wanted.numpy())


@pytest.mark.parametrize("kind", CLASSES)
def test_whole_models_in_memory_are_the_same_function(config: Make, experts: dict[str, Path], kind: str) -> None:
    found = opened(read(config_of(config, experts[kind])), 10)
    lines = encoded({name: lines_of(name, 4) for name in NAMES}, tokenizer_of(found))
    live, streamed = (one.nats(lines, [0.5, 1.0, 1.5]) for one in (Live(found), ByCoefficients(found)))
    assert per_token(live, lines) == pytest.approx(per_token(streamed, lines), rel=1e-5)
