"""Tokenizers that are trained on a few random words, as tokenizer.json has them."""

import json
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ARABIC = [chr(point) for point in (*range(0x621, 0x63B), *range(0x641, 0x64B))]
LATIN = list("abcdefghijklmnopqrstuvwxyz")
CYRILLIC = [chr(point) for point in range(0x430, 0x450)]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def words(seed: int, letters: list[str], count: int, longest: int = 7) -> list[str]:
    """Words of which some letters follow each other more often than others."""
    random = np.random.default_rng(seed)
    stems = ["".join(random.choice(letters, random.integers(2, 4))) for _ in range(40)]
    return [
        "".join(random.choice([*stems, *letters], random.integers(1, longest)))[: longest + 3] for _ in range(count)
    ]


def lines(found: list[str], seed: int = 0, length: int = 6) -> list[str]:
    shuffled = list(np.random.default_rng(seed).permutation(found))
    return [" ".join(shuffled[at : at + length]) for at in range(0, len(shuffled), length)]


def by_bytes(texts: list[str], size: int, special: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
    made = Tokenizer(models.BPE(**options))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    made.add_special_tokens(list(special))
    return json.loads(made.to_str())


def by_characters(texts: list[str], size: int, fallback: bool = False) -> dict[str, Any]:
    made = Tokenizer(models.BPE(byte_fallback=fallback, unk_token="<unk>", fuse_unk=True))
    special = ["<unk>", "<s>", "</s>", *(BYTES if fallback else [])]
    if fallback:  # as Llama 2 has it: the text as one word
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        made.decoder = decoders.Sequence(parts)
    else:
        made.decoder = decoders.Metaspace()
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    made.normalizer, kept = None, made.normalizer
    made.train_from_iterator(texts, trainer)
    made.normalizer = kept
    if fallback:
        made.pre_tokenizer = None
    return json.loads(made.to_str())


def of_pieces(texts: list[str], size: int) -> dict[str, Any]:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=size, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    made.train_from_iterator(texts, trainer)
    return json.loads(made.to_str())


def of_words(texts: list[str], size: int) -> dict[str, Any]:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=["[UNK]"], show_progress=False)
    made.train_from_iterator(texts, trainer)
    return json.loads(made.to_str())
