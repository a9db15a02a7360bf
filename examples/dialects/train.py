"""Trains the example models: a small Arabic base on Modern Standard Arabic, and one LoRA adapter per dialect.

    python examples/dialects/train.py TEXT_DIR [--output DIR]

TEXT_DIR holds one TSV file per variety; `sources.py` says where each source is had and under which licence. Seeded,
CPU only: the base on `--threads` threads, then `--jobs` adapters at a time on one thread each. No step looks at
held-out text: the last weights of each run are the ones that are written. The output has the layout of this directory:
`base/` and `adapters/DIALECT/`, weights in bfloat16.
"""

import argparse
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from attrs import frozen
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from sources import DIALECTS, VARIETIES, read_texts
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.utils import logging

END = "<|endoftext|>"
VOCABULARY = 1024
CONTEXT = 256
WINDOW = 128
BATCH = 16
SEED = 20240


@frozen
class Recipe:
    """Optimiser settings of one training run. `steps` are batches of BATCH windows of WINDOW tokens."""

    steps: int
    learning_rate: float
    warmup: int
    weight_decay: float


BASE = Recipe(steps=1000, learning_rate=2e-3, warmup=50, weight_decay=0.1)
ADAPTER = Recipe(steps=240, learning_rate=1e-3, warmup=12, weight_decay=0.0)


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of VOCABULARY entries; END (id 0) is beginning, end and padding in one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        pad_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def encode_stream(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """int64 (tokens,): every text once, each preceded by END, with one END at the close."""
    end = tokenizer.eos_token_id
    ids = [token for text in texts for token in (end, *tokenizer.backend_tokenizer.encode(text).ids)]
    return torch.tensor([*ids, end])


def make_base(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    end = tokenizer.eos_token_id
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        use_cache=True,
    )
    return Qwen2ForCausalLM(config)


def warmup_cosine(recipe: Recipe) -> Callable[[int], float]:
    """Factor on the learning rate at a step: linear from 0 over the warm-up, then half a cosine down to 0."""

    def factor(step: int) -> float:
        if step < recipe.warmup:
            return (step + 1) / recipe.warmup
        return 0.5 * (1 + math.cos(math.pi * (step - recipe.warmup) / (recipe.steps - recipe.warmup)))

    return factor


def train(name: str, model: torch.nn.Module, stream: torch.Tensor, recipe: Recipe, seed: int) -> None:
    """Trains `model` in place on random windows of `stream`, which is int64 (tokens,)."""
    windows = torch.Generator().manual_seed(seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup_cosine(recipe))
    model.train()
    started = time.monotonic()
    for step in range(1, recipe.steps + 1):
        starts = torch.randint(len(stream) - WINDOW, (BATCH,), generator=windows)
        batch = stream[starts[:, None] + torch.arange(WINDOW)]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 40 == 0 or step == recipe.steps:
            elapsed = time.monotonic() - started
            print(f"{name}: step {step}/{recipe.steps}, loss {loss.item():.3f}, {elapsed:.0f} s", flush=True)


def train_base(stream: torch.Tensor, tokenizer: PreTrainedTokenizerFast, base_dir: Path) -> None:
    torch.manual_seed(SEED)
    model = make_base(tokenizer)
    print(f"base: {model.num_parameters()} parameters", flush=True)
    train("base", model, stream, BASE, SEED)
    model.to(torch.bfloat16).save_pretrained(base_dir)
    tokenizer.save_pretrained(base_dir)


def train_adapter(dialect: str, stream: torch.Tensor, base_dir: Path, adapter_dir: Path) -> None:
    """Trains a LoRA on the base as it was written (bfloat16 values), and writes it in PEFT's format."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    logging.disable_progress_bar()
    seed = SEED + 1 + DIALECTS.index(dialect)
    torch.manual_seed(seed)
    base = Qwen2ForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    train(dialect, model, stream, ADAPTER, seed)
    config = model.peft_config["default"]
    # PEFT would record this machine's path to the base, and the modules in the order of a set.
    config.base_model_name_or_path = "examples/dialects/base"
    config.target_modules = sorted(config.target_modules)
    model.save_pretrained(adapter_dir, save_embedding_layers=False)
    (adapter_dir / "README.md").unlink(missing_ok=True)
    weights = adapter_dir / "adapter_model.safetensors"
    rounded = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(weights).items()}
    save_file(rounded, weights, metadata={"format": "pt"})


def read_all_texts(text_dir: Path) -> dict[str, list[str]]:
    """Texts by variety; prints how many lines came from which source."""
    texts: dict[str, list[str]] = {}
    for variety in VARIETIES:
        by_source = read_texts(text_dir, variety)
        print(f"{variety}: " + ", ".join(f"{len(part)} {source}" for source, part in by_source.items()), flush=True)
        texts[variety] = [text for part in by_source.values() for text in part]
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text_dir", type=Path, metavar="TEXT_DIR")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--threads", type=int, default=2, help="threads for the base")
    parser.add_argument("--jobs", type=int, default=2, help="adapters trained at the same time")
    parser.add_argument("--keep-base", action="store_true", help="train only the adapters, on OUTPUT/base")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)

    texts = read_all_texts(arguments.text_dir)
    base_dir = arguments.output / "base"
    if arguments.keep_base:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(base_dir)
    else:
        tokenizer = train_tokenizer([text for lines in texts.values() for text in lines])
        train_base(encode_stream(tokenizer, texts["msa"]), tokenizer, base_dir)

    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        runs = [
            pool.submit(
                train_adapter,
                dialect,
                encode_stream(tokenizer, texts[dialect]),
                base_dir,
                arguments.output / "adapters" / dialect,
            )
            for dialect in DIALECTS
        ]
        for run in runs:
            run.result()


if __name__ == "__main__":
    main()
