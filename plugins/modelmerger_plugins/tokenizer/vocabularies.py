"""Vocabularies of tokenizers, read from their files: token → row of the embedding. Nothing is run to read them."""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen
from modelmerger import InputError, list_directory, read_beside, read_json

from modelmerger_plugins.chat_templates import CONFIG, CONFIG_LIMIT
from modelmerger_plugins.tokenizer.cutting import cutting_of

LIMIT, MOST_VALUES = 256 << 20, 4_000_000
"""Bytes of a file, and values in one; the largest vocabularies have 1.6 million, their merges included."""
MOST_TOKENS = 1 << 20
"""Tokens of a vocabulary; the largest have a quarter of that."""
FAST, ADDED, LISTED = "tokenizer.json", "added_tokens.json", "added_tokens_decoder"
SENTENCEPIECE = (".model", ".spm")
_NUMBER = "[0-9]{1,9}"
_END_OF_LINE = "\r\n|\r|\n"


@frozen(eq=False, repr=False)
class Vocabulary:
    """Which token is which row."""

    file: str
    """Where it stands."""
    rows: Mapping[str, int]
    """Token → row."""
    exact: bool = True
    """Whether the rows are those of the embedding; a sentencepiece model may be used with others."""
    cutting: Mapping[str, str] = field(factory=dict)
    """Of tokenizer.json: each part that decides where texts are cut, by its name in messages → a digest of it."""


def vocabulary_of(directory: Path, names: list[str] | None = None) -> Vocabulary | None:
    """The vocabulary of a model's directory, from the first file that transformers would take; None where none says it.

    Raises `InputError`, `ValueError`, `LookupError`, `TypeError` or `AttributeError` for a file of another form.
    """
    present = list_directory(directory) if names is None else names
    if FAST in present:
        value = read_json(read_beside(directory, FAST, LIMIT) or b"", FAST, unique=False, nodes=MOST_VALUES)
        rows, added = _fast(value), _beside(directory, FAST)
        if lacking := added.keys() - rows.keys():
            taken = set(rows.values())
            rows |= {token: added[token] for token in added if token in lacking and added[token] not in taken}
        return Vocabulary(FAST, rows, cutting=cutting_of(value))
    for file, read, exact in _readers(present):
        found = read(read_beside(directory, file, LIMIT) or b"", file)
        if found is not None:
            return Vocabulary(file, {**found, **_beside(directory, file)}, exact)
    return None


def vocabulary_alone(directory: Path, file: str) -> Mapping[str, int]:
    """What a file other than tokenizer.json says by itself, without added tokens of other files. Raises as
    `vocabulary_of` does.
    """
    read = next(read for name, read, _ in _readers([file]) if name == file)
    return read(read_beside(directory, file, LIMIT) or b"", file) or {}


def _readers(present: list[str]) -> Iterator[tuple[str, Callable[[bytes, str], dict[str, int] | None], bool]]:
    known: tuple[tuple[str, Callable[[bytes, str], dict[str, int] | None]], ...] = (
        ("vocab.json", _json),
        ("vocab.txt", _lines),
    )
    yield from ((name, read, True) for name, read in known if name in present)
    yield from ((name, _ranks, True) for name in present if name.endswith(".tiktoken"))
    yield from ((name, _pieces, False) for name in present if name.endswith(SENTENCEPIECE) and name != "target.spm")


def _beside(directory: Path, file: str) -> dict[str, int]:
    """Added tokens that other files name. Raises for what cannot be read, which a tokenizer.json can do without."""
    try:
        return added_tokens(directory)
    except (InputError, AttributeError):
        if file == FAST:
            return listed_tokens(directory)
        raise


def added_tokens(directory: Path) -> dict[str, int]:
    """Tokens that were added to those of the vocabulary's own file."""
    content = read_beside(directory, ADDED, LIMIT)
    value = {} if content is None else read_json(content, ADDED, unique=False, nodes=MOST_VALUES)
    return listed_tokens(directory) | {token: row for token, row in value.items() if isinstance(row, int)}


def listed_tokens(directory: Path) -> dict[str, int]:
    """Added tokens as tokenizer_config.json lists them, by their ids; none where it cannot be read, which is said
    where it is copied.
    """
    return {token: row for token, (row, _) in listed_entries(directory).items()}


def listed_entries(directory: Path) -> dict[str, tuple[int, Mapping[str, Any]]]:
    """The same, with all that the file says of each."""
    try:
        content = read_beside(directory, CONFIG, CONFIG_LIMIT) or b"{}"
        value = read_json(content, CONFIG, unique=False, infinite=())
    except InputError:
        return {}
    listed = value.get(LISTED) if isinstance(value, dict) else None
    entries = listed.items() if isinstance(listed, dict) else ()
    named = [(number, entry if isinstance(entry, dict) else {"content": entry}) for number, entry in entries]
    return {
        entry["content"]: (int(number), entry)
        for number, entry in named
        if isinstance(entry.get("content"), str) and re.fullmatch(_NUMBER, number)
    }


def _fast(value: Any) -> dict[str, int]:
    vocabulary: Any = value["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary = {entry[0]: row for row, entry in enumerate(vocabulary)}
    return {**vocabulary, **{token["content"]: token["id"] for token in value.get("added_tokens") or ()}}


def _json(content: bytes, file: str) -> dict[str, int]:
    return dict(read_json(content, file, unique=False, nodes=MOST_VALUES).items())


def _lines(content: bytes, _: str) -> dict[str, int]:
    lines = re.split(_END_OF_LINE, content.decode())  # and not at U+0085 or U+2028, which are tokens
    return {line: row for row, line in enumerate(lines[:-1] if lines[-1] == "" else lines)}


def _ranks(content: bytes, _: str) -> dict[str, int] | None:
    try:
        pairs = [line.split() for line in content.splitlines() if line]
        return {base64.b64decode(token, validate=True).decode("latin-1"): int(rank) for token, rank in pairs}
    except (ValueError, binascii.Error):
        return None


def _pieces(content: bytes, _: str) -> dict[str, int] | None:
    """The pieces of a sentencepiece model: field 1 of each message that is field 1 of the whole."""
    try:
        pieces = [next(text for number, text in _fields(piece) if number == 1) for piece in _messages(content)]
        return {piece.decode(): row for row, piece in enumerate(pieces)} or None
    except (ValueError, IndexError, StopIteration, RuntimeError):
        return None


def _messages(content: bytes) -> Iterator[bytes]:
    return (value for number, value in _fields(content) if number == 1)


def _fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and content of the fields of a protobuf message; of those that are no text or message, an empty one."""
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        kind, number = key & 7, key >> 3
        if kind == 0:
            _, place = _varint(content, place)
            yield number, b""
            continue
        length, place = _varint(content, place) if kind == 2 else ({1: 8, 5: 4}[kind], place)
        if place + length > len(content):
            raise ValueError("a field ends behind the message")
        yield number, content[place : place + length] if kind == 2 else b""
        place += length


def _varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
