"""Models of two dialects from one base: one with the base's vocabulary, and one with more tokens of its dialect."""

import json
import random
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "dialects"
sys.path.insert(0, str(EXAMPLE))

from train import CONTEXT, SEED, Recipe, encode_stream, train  # noqa: E402 (in the folder that was just put on the path)

BASE = EXAMPLE / "base"
FAST = "tokenizer.json"
PRIVATE = 0xE000
"""The first letter for private use; there are 6,400."""
TENTH = 10


def lines_of(folder: Path, dialect: str) -> tuple[list[str], list[str]]:
    """The lines to train on, and the tenth that is held out: every tenth line that fits into the model's context."""
    rows = (folder / f"{dialect}.tsv").read_text(encoding="utf-8").splitlines()
    texts = [row.partition("\t")[2] for row in rows]
    tokenizer = Tokenizer.from_file(str(BASE / FAST))
    held_out = [text for text in texts[::TENTH] if len(tokenizer.encode(text).ids) < CONTEXT]
    random.Random(SEED).shuffle(held_out)  # sources stand one behind the other
    return [text for place, text in enumerate(texts) if place % TENTH], held_out


def extended_tokenizer(value: Mapping[str, Any], texts: Iterable[str], size: int) -> dict[str, Any]:
    """The tokenizer with as many more tokens, as if its training had gone on with these texts.

    The library cannot go on with a training, so that each token is written as one letter, and merges of these learnt.
    """
    tokenizer = Tokenizer.from_str(json.dumps(value))
    names: dict[int, str] = {number: token for token, number in value["model"]["vocab"].items()}
    letters = {number: chr(PRIVATE + number) for number in names}
    spelt: dict[str, str] = {}

    def written(text: str) -> str:
        words = tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
        for word in {word for word, _ in words} - spelt.keys():
            spelt[word] = "".join(letters[piece.id] for piece in tokenizer.model.tokenize(word))
        return " ".join(spelt[word] for word, _ in words)

    learning = Tokenizer(models.BPE())
    learning.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=size + 64, initial_alphabet=sorted(letters.values()), show_progress=False)
    learning.train_from_iterator(map(written, texts), trainer)
    vocabulary, merges = dict(value["model"]["vocab"]), list(value["model"]["merges"])
    for pair in json.loads(learning.to_str())["model"]["merges"]:
        left, right = ("".join(names[ord(letter) - PRIVATE] for letter in half) for half in pair)
        if len(vocabulary) == size:
            break
        vocabulary.setdefault(left + right, len(vocabulary))
        merges.append([left, right])
    return {**value, "model": {**value["model"], "vocab": vocabulary, "merges": merges}}


def make_models(folder: Path, texts: Mapping[str, Sequence[str]], size: int, steps: int) -> None:
    """`base`, as it ships; `egyptian`, trained on; and `levantine`, trained on with so many tokens."""
    shutil.copytree(BASE, folder / "base", dirs_exist_ok=True)
    value = json.loads((BASE / FAST).read_text(encoding="utf-8"))
    for number, (dialect, lines) in enumerate(texts.items()):
        target = folder / dialect
        shutil.copytree(BASE, target, dirs_exist_ok=True)
        if dialect == "levantine":
            made = extended_tokenizer(value, lines, size)
            (target / FAST).write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")
        tokenizer = AutoTokenizer.from_pretrained(target)
        torch.manual_seed(SEED)
        model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
        _extend(model, tokenizer.backend_tokenizer, Tokenizer.from_file(str(BASE / FAST)))
        shuffled = random.Random(SEED).sample(list(lines), len(lines))
        recipe = Recipe(steps=steps, learning_rate=1e-3, warmup=steps // 20, weight_decay=0.0)
        train(dialect, model, encode_stream(tokenizer, shuffled), recipe, SEED + number)
        model.to(torch.bfloat16).save_pretrained(target)


def _extend(model: Any, tokenizer: Tokenizer, before: Tokenizer) -> None:
    """Rows for all tokens: a new one begins as the mean of the rows of its pieces."""
    size, known = tokenizer.get_vocab_size(), before.get_vocab_size()
    rows = model.get_input_embeddings().weight.detach().clone()
    model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for number in range(known, size):
            pieces = [piece.id for piece in before.model.tokenize(tokenizer.id_to_token(number))]
            model.get_input_embeddings().weight[number] = rows[pieces].mean(0)
