"""Four tiny language models: a base, and three of it that were pushed a little, each towards lines of its own."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from modelmerger_plugins.tune.measured import Lines
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.func import functional_call
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

NAMES = ("a", "b", "c")
LETTERS = {"a": "abcdefgh", "b": "hijklmno", "c": "opqrstuv"}


def lines_of(name: str, count: int, seed: int = 0) -> list[str]:
    drawn = random.Random(f"{name} {seed}")
    words = ["".join(drawn.choice(LETTERS[name]) for _ in range(drawn.randint(2, 6))) for _ in range(40)]
    return [
        " ".join(drawn.choice(words) for _ in range(8))[:26].strip().ljust(26, LETTERS[name][0]) for _ in range(count)
    ]


def losses_under(directory: Path, merged: Mapping[str, Tensor], lines: Lines) -> dict[str, Tensor]:
    """The loss of each split, in float64, of the model of a directory with these weights, as autograd can go back."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float64).eval()
    found = {}
    for split, own in lines.tokens.items():
        nats = torch.zeros((), dtype=torch.float64)
        for line in own:  # one by one: no padding
            tokens = torch.tensor([[0, *line]])
            logits = functional_call(model, dict(merged), (tokens,), tie_weights=True).logits
            nats = nats + torch.nn.functional.cross_entropy(logits[0, :-1].double(), tokens[0, 1:], reduction="sum")
        found[split] = nats / sum(map(len, own))
    return found


def tokenizer() -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={"<s>": 0, **{c: i + 1 for i, c in enumerate(letters)}}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="<s>")


def _trained(model: Qwen2ForCausalLM, lines: list[str], steps: int, rate: float) -> None:
    tokens = torch.tensor([[0, *tokenizer().encode(line)] for line in lines])
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    for _ in range(steps):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with `base`, `a`, `b` and `c`, in float32."""
    folder = tmp_path_factory.mktemp("tiny")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=257,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=True,
    )
    base = Qwen2ForCausalLM(config)
    _trained(base, [line for name in NAMES for line in lines_of(name, 8)], 12, 3e-3)
    start = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    for name in ("base", *NAMES):
        base.load_state_dict(start)
        if name != "base":
            _trained(base, lines_of(name, 16), 12, 2e-3)
        base.save_pretrained(folder / name)
        tokenizer().save_pretrained(folder / name)
    torch.set_num_threads(threads)
    return folder


Make = Callable[..., dict[str, Any]]


@pytest.fixture
def config(tiny: Path, tmp_path: Path) -> Make:
    """A function of the number of lines and of keys of the section `tune`, which gives a config."""

    def made(lines: int = 12, mark: dict[str, Any] | None = None, **section: Any) -> dict[str, Any]:
        texts = {}
        for part, seed in (("texts", 0), ("test_texts", 1)):
            texts[part] = {}
            for name in NAMES:
                file = tmp_path / f"{part}-{name}.txt"
                file.write_text("\n".join(lines_of(name, lines if part == "texts" else 12, seed)), encoding="utf-8")
                texts[part][name] = str(file)
        weight = mark or {"tune": [0, 3], "start": 0.4}
        return {
            "strategy": "task_arithmetic",
            "base_model": str(tiny / "base"),
            "models": [{"path": str(tiny / name), "weight": dict(weight)} for name in NAMES],
            "options": {"scaling_factor": 0.35},
            "output_path": str(tmp_path / "out"),
            "tune": {**texts, "search": {"steps": 3}, **section},
        }

    return made
