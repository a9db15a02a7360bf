"""Real transformers models of a few thousand numbers with a real tokenizer, made on the spot; and what loading them says."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import directory_state

TEXTS = ["مرحبا، كيف حالك اليوم؟", "إزيك؟ عامل إيه؟", "شلونك؟ شخبارك؟", "كيداير؟ لاباس عليك؟", "the cat sat on the mat"]
TEMPLATE = "{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}"
DTYPE = torch.float32


def tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # as Qwen2's, which transformers takes it for
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=90, special_tokens=["<unk>", "<s>", "</s>"]))
    fast = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.chat_template = TEMPLATE
    return fast


def write_tiny(folder: Path, model: Any, seed: int, near: dict[str, torch.Tensor] | None = None) -> Path:
    """Saves the model with random weights; with `near`, with small changes to those."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(near[name] + 0.05 * noise if near else 0.3 * noise + (parameter.dim() == 1))
    model.save_pretrained(folder)
    return folder


def make_tiny(folder: Path, *, tied: bool, dtype: torch.dtype = DTYPE, words: Any = None) -> SimpleNamespace:
    """`base`, and `a` and `b` tuned from it; `words` is their tokenizer."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    words = words or tokenizer()
    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    model = Qwen2ForCausalLM(config).to(dtype)
    base = write_tiny(folder / "base", model, 0)
    near = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    paths = {"base": base, **{name: write_tiny(folder / name, model, i, near) for i, name in ((1, "a"), (2, "b"))}}
    for path in paths.values():
        words.save_pretrained(path)
    return SimpleNamespace(words=words, **paths)


_MADE: dict[str, tuple[Path, SimpleNamespace, Any]] = {}


def once(
    name: str, make: Callable[[Path], SimpleNamespace], places: pytest.TempPathFactory
) -> Iterator[SimpleNamespace]:
    """One for all modules: to pytest, a fixture that several of them import is one of each of them. No test may change
    its files.
    """
    if name not in _MADE:
        folder = places.mktemp(name)
        made = make(folder)
        _MADE[name] = folder, made, directory_state(folder)
    folder, made, state = _MADE[name]
    yield made
    assert directory_state(folder) == state, f"a test has changed the files of '{name}', which all tests share"


@pytest.fixture(scope="session")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    yield from once("tied", lambda folder: make_tiny(folder, tied=True), tmp_path_factory)


@pytest.fixture(scope="session")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    yield from once("untied", lambda folder: make_tiny(folder, tied=False), tmp_path_factory)


@pytest.fixture(scope="session")
def arabic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """With the tokenizer of the example models, which is the same when it is loaded by the model's type."""

    def make(folder: Path) -> SimpleNamespace:
        from transformers import AutoTokenizer

        words = AutoTokenizer.from_pretrained(Path(__file__).parents[2] / "examples/dialects/base")
        words.chat_template = TEMPLATE
        return make_tiny(folder, tied=True, words=words)

    yield from once("arabic", make, tmp_path_factory)


class _Collect(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def said_by_transformers() -> Iterator[list[str]]:
    """What transformers logs at WARNING and above, and Python's own warnings."""
    handler = _Collect()
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield handler.said
            handler.said += [str(warning.message) for warning in caught]
    finally:
        logger.removeHandler(handler)


def load(directory: Path) -> tuple[Any, list[str]]:
    """The model through the class in `architectures[0]`, and what was said while it was loaded, the path left out."""
    import json

    import transformers

    name = json.loads((directory / "config.json").read_text())["architectures"][0]
    with said_by_transformers() as said:
        model, report = getattr(transformers, name).from_pretrained(directory, output_loading_info=True)
    faults = [f"{key}: {value}" for key, value in report.items() if value]
    return model.eval(), [line.replace(str(directory), "DIR") for line in said + faults]


def logits(model: Any) -> torch.Tensor:
    """Of a fixed input."""
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(3, 19).view(2, 8)).logits
    return found
