"""Real Arabic vocabularies, where aranizer is installed or ARANIZER says where its wheel is unpacked."""

import importlib.util
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.plugins.tokenizer.union.test_union import assert_sound, ids, joined, opened
from tests.plugins.tokenizer.union.trained import by_bytes, by_characters

ROOT = Path(__file__).parents[4]
ENGLISH = [
    line for page in sorted((ROOT / "docs").rglob("*.md")) for line in page.read_text().splitlines() if line.strip()
]
ARABIC = [
    line
    for path in sorted((ROOT / "validators/modelmerger_validators/data/texts").glob("*.txt"))
    if path.stem != "english"
    for line in path.read_text().splitlines()
    if line
]
LONG = [" ".join(ARABIC[start : start + 4]) for start in range(0, len(ARABIC), 4)]
"""Few words begin a line, where a vocabulary of characters knows them behind a space alone."""


def tokenizers_of_aranizer() -> Path | None:
    if place := os.environ.get("ARANIZER"):
        return Path(place)
    found = importlib.util.find_spec("aranizer")
    return Path(found.submodule_search_locations[0]) if found and found.submodule_search_locations else None


PLACE = tokenizers_of_aranizer()
pytestmark = pytest.mark.skipif(PLACE is None, reason="aranizer, whose tokenizers these are, is not installed")


def second(name: str) -> dict[str, Any]:
    assert PLACE is not None
    found: dict[str, Any] = json.loads((PLACE / "tokenizers" / name).read_text())
    return found


def per_word(tokenizer: Tokenizer, lines: list[str]) -> float:
    return sum(len(ids(tokenizer, line)) for line in lines) / sum(len(line.split()) for line in lines)


@cache
def trained(first: Callable[[list[str], int], dict[str, Any]]) -> dict[str, Any]:
    return first([*ENGLISH, *ARABIC[:40]], 4_000)


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (by_bytes, "bpe/BPE_tokenizer_32.0K.json"),
        (by_bytes, "sp/SP_tokenizer_32.0K.json"),
        (lambda lines, size: by_characters(lines, size, fallback=True), "sp/SP_tokenizer_32.0K.json"),
    ],
    ids=["bytes and bytes", "bytes and characters", "characters"],
)
def test_arabic_is_cut_as_well_as_by_the_second_and_english_as_before(first: Any, name: str) -> None:
    ours, theirs = trained(first), second(name)

    union = joined(ours, theirs)

    assert_sound(ours, union)
    before, after, made = opened(ours), opened(theirs), opened(dict(union.value))
    begun = [f" {line}" for line in ARABIC] if first is by_bytes else ARABIC  # Llama 2 writes that space itself
    assert per_word(made, begun) <= 1.03 * per_word(after, ARABIC)
    assert per_word(made, LONG) <= 1.03 * per_word(after, LONG)
    assert per_word(made, begun) < 0.6 * per_word(before, begun)
    special = [token["content"] for token in union.added]
    others = [line for line in ENGLISH if not any(token in line for token in special)]
    letters = [line for line in others if not any("\u0600" <= letter <= "\u06ff" for letter in line)]
    assert len(letters) > 1000
    assert all(ids(made, line) == ids(before, line) for line in letters)
    assert all(made.decode(ids(made, line)) == line for line in ARABIC)
    imported = union.joined[0].imported.entries
    assert len(imported) > 30_000
    whole = [token for token in imported if "\ufffd" not in made.decode([union.tokens[token]])]
    assert sum([piece.value for piece in made.model.tokenize(token)] == [token] for token in whole) > 0.99 * len(whole)
