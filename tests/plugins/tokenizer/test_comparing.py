"""Tokenizers are compared whatever their format."""

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger import MergeConfig, ModelMerger

WORDS = ["<unk>", "<s>", "ا", "ب", "ت", "ث"]


def fast(words: list[str], added: list[str] | None = None) -> bytes:
    rows = {word: row for row, word in enumerate(words)}
    tokens = [{"content": word, "id": len(words) + number} for number, word in enumerate(added or [])]
    return json.dumps({"model": {"vocab": rows}, "added_tokens": tokens}, ensure_ascii=False).encode()


def as_json(words: list[str]) -> bytes:
    return json.dumps({word: row for row, word in enumerate(words)}).encode()


def as_lines(words: list[str]) -> bytes:
    return "\n".join(words).encode()


def as_ranks(words: list[str]) -> bytes:
    return b"\n".join(base64.b64encode(word.encode()) + b" %d" % rank for rank, word in enumerate(words))


def as_pieces(words: list[str]) -> bytes:
    """A ModelProto of sentencepiece: field 1, each with the piece, its score and its type; then a trainer spec."""
    content = b""
    for word in words:
        text = word.encode()
        piece = b"\x0a" + bytes([len(text)]) + text + b"\x15\x00\x00\x80\xbf" + b"\x18\x01"
        content += b"\x0a" + bytes([len(piece)]) + piece
    return content + b"\x12\x03\x50\x80\x01"


FORMATS = {
    "tokenizer.json": fast,
    "vocab.json": as_json,
    "vocab.txt": as_lines,
    "qwen.tiktoken": as_ranks,
    "spiece.model": as_pieces,
}
SWAPPED = ["<unk>", "<s>", "ب", "ا", "ت", "ث"]


MATCHED = ("tokenizer.json", "vocab.json", "vocab.txt")
"""Files that say which row of the embedding a token is, so that rows are matched."""


def said(
    models: SimpleNamespace,
    config: dict[str, Any],
    a: dict[str, bytes],
    b: dict[str, bytes],
    severity: str = "warning",
) -> list[str]:
    for directory, files in ((models.a, a), (models.b, b)):
        for name, content in files.items():
            Path(directory, name).write_bytes(content)
    notes = ModelMerger(MergeConfig(**config)).check_compatibility()
    return [f"{Path(note.where).name}: {note.message}" for note in notes if note.severity == severity]


@pytest.mark.parametrize("file", FORMATS)
def test_a_vocabulary_is_compared_with_one_of_the_same_format(
    models: SimpleNamespace, config: dict[str, Any], file: str
) -> None:
    content = FORMATS[file]
    assert said(models, config, {file: content(WORDS)}, {file: content(WORDS)}) == []
    if file in MATCHED:
        notes = said(models, config, {}, {file: content(SWAPPED)}, "note")
        assert f"{file}: has the tokens of 'a' in other rows (2 moved): 6 tokens shared, 0 added" in "\n".join(notes)
        return
    (warning,) = said(models, config, {}, {file: content(SWAPPED)})
    assert warning == f"{file}: 2 tokens stand for other rows of the embedding than in 'a', whose tokenizer is taken."


@pytest.mark.parametrize("theirs", ["vocab.json", "vocab.txt", "spiece.model"])
def test_equal_vocabularies_in_different_formats_are_no_difference(
    models: SimpleNamespace, config: dict[str, Any], theirs: str
) -> None:
    assert said(models, config, {"tokenizer.json": fast(WORDS)}, {theirs: FORMATS[theirs](WORDS)}) == []
    swapped = {theirs: FORMATS[theirs](SWAPPED)}
    assert len(said(models, config, {}, swapped)) == (0 if theirs in MATCHED else 1)
    assert ("2 moved" in "\n".join(said(models, config, {}, swapped, "note"))) == (theirs in MATCHED)


def test_added_tokens_count_wherever_they_stand(models: SimpleNamespace, config: dict[str, Any]) -> None:
    ours = {"tokenizer.json": fast(WORDS, ["<new>"])}
    theirs = {"vocab.json": as_json(WORDS), "added_tokens.json": b'{"<new>": 6}'}

    assert said(models, config, ours, theirs) == []
    notes = said(models, config, {}, {"added_tokens.json": b'{"<new>": 7}'}, "note")
    assert "has the tokens of 'a' in other rows (1 moved): 7 tokens shared, 0 added" in "\n".join(notes)


def test_rows_that_special_tokens_have_moved_are_no_difference(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """As in XLM-R, whose rows are those of its sentencepiece model and one more."""
    moved = ["<s>", "<pad>", "</s>", "<unk>", "ا", "ب", "ت", "ث", "<mask>"]

    assert said(models, config, {"tokenizer.json": fast(moved)}, {"sentencepiece.bpe.model": as_pieces(WORDS)}) == []


def test_files_of_unknown_formats_are_compared_by_their_bytes(models: SimpleNamespace, config: dict[str, Any]) -> None:
    same = {"vocab.json": as_json(WORDS), "source.spm": b"x", "bpe.codes": b"y"}

    assert said(models, config, same, same) == []
    (warning,) = said(models, config, {}, {"source.spm": b"z"})
    assert warning == "source.spm: differs from that of 'a', whose tokenizer is taken."


@pytest.mark.parametrize(
    "content", [b"", b"\x0a", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x0a\x05abc", b"\0" * 50]
)
def test_a_broken_sentencepiece_model_is_compared_by_its_bytes(
    models: SimpleNamespace, config: dict[str, Any], content: bytes
) -> None:
    (warning,) = said(models, config, {"spiece.model": as_pieces(WORDS)}, {"spiece.model": content})

    assert warning == "spiece.model: differs from that of 'a', whose tokenizer is taken."


@pytest.mark.parametrize("row", ["1", 1.5, None, [], 10**30])
def test_rows_that_are_no_numbers_are_compared_all_the_same(
    models: SimpleNamespace, config: dict[str, Any], row: Any
) -> None:
    odd = {**{word: number for number, word in enumerate(WORDS)}, WORDS[-1]: row, "x": 99}
    content = json.dumps({"model": {"type": "BPE", "vocab": odd, "merges": []}}).encode()

    assert said(models, config, {"tokenizer.json": content}, {"spiece.model": as_pieces(WORDS)}) != []
