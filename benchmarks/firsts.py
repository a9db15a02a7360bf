"""Tokenizers that are trained on some lines, as tokenizer.json has them."""

import json
import random
from collections.abc import Sequence
from typing import Any

from modelmerger_plugins.tokenizer.union.spelling import letters_of_bytes
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
END = "<|endoftext|>"
ALPHABETS = {
    "latin": (range(0x61, 0x7B), 60),
    "accented": (range(0xE0, 0x180), 8),
    "cyrillic": (range(0x430, 0x450), 8),
    "arabic": (range(0x621, 0x64B), 3),
    "thai": (range(0xE01, 0xE2F), 3),
    "chinese": (range(0x4E00, 0x6E00), 18),
}
"""Letters, and how many of a hundred tokens are of them."""
LONGEST = 10


def by_bytes(lines: Sequence[str], size: int) -> dict[str, Any]:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    _train(
        made,
        lines,
        trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=[END],
            show_progress=False,
        ),
    )
    return _value(made)


def by_characters(lines: Sequence[str], size: int) -> dict[str, Any]:
    """As Llama 2 has it: a text is one word, its spaces are "▁", and what is unknown falls back on bytes."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<s>", "</s>", *BYTES]
    _train(made, lines, trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    value = _value(made)
    return {**value, "pre_tokenizer": None}


def of_pieces(lines: Sequence[str], size: int) -> dict[str, Any]:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    _train(
        made,
        lines,
        trainers.UnigramTrainer(vocab_size=size, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False),
    )
    return _value(made)


def of_words(lines: Sequence[str], size: int) -> dict[str, Any]:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    _train(made, lines, trainers.WordPieceTrainer(vocab_size=size, special_tokens=["[UNK]"], show_progress=False))
    return _value(made)


def by_bytes_at_random(size: int) -> dict[str, Any]:
    """A tokenizer of that size whose tokens are letters of several scripts, joined at random."""
    drawn, value = random.Random(0), by_bytes([], 300)
    vocabulary, merges = value["model"]["vocab"], list[list[str]]()
    of_byte = letters_of_bytes()

    def add(left: str, right: str) -> None:
        if left + right not in vocabulary:
            vocabulary[left + right] = len(vocabulary)
            merges.append([left, right])

    known: dict[str, list[str]] = {}
    for name, (points, _) in ALPHABETS.items():
        spelt = ["".join(of_byte[byte] for byte in chr(point).encode()) for point in points]
        for letter in spelt:
            for end in range(1, len(letter)):
                add(letter[:end], letter[end])
        known[name] = spelt
    names, shares = list(ALPHABETS), [share for _, share in ALPHABETS.values()]
    while len(vocabulary) < size:
        own = known[drawn.choices(names, shares)[0]]
        left, right = drawn.choices(own, k=2)
        before = len(vocabulary)
        if len(left + right) <= LONGEST * len(own[0]):
            add(left, right)
        if len(vocabulary) > before:
            own.append(left + right)
    value["model"]["merges"] = merges
    return value


def _train(tokenizer: Tokenizer, lines: Sequence[str], trainer: Any) -> None:
    tokenizer.train_from_iterator(lines, trainer)


def _value(tokenizer: Tokenizer) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(tokenizer.to_str())
    return value
