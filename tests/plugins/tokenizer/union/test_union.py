"""What holds of every union: nothing changes for the first, and the second's scripts are cut as well as before."""

import json
from typing import Any

import numpy as np
import pytest
from modelmerger import InputError
from modelmerger_plugins.tokenizer.union.documents import document_of
from modelmerger_plugins.tokenizer.union.joining import Union, union_of
from tokenizers import Tokenizer

from tests.plugins.tokenizer.union.trained import (
    ARABIC,
    CYRILLIC,
    LATIN,
    by_bytes,
    by_characters,
    lines,
    of_pieces,
    of_words,
    words,
)

SEEDS = range(6)


def opened(value: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(value))


def joined(*values: dict[str, Any]) -> Union:
    return union_of([document_of(value, f"m{i}", f"m{i}/tokenizer.json") for i, value in enumerate(values)])


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def without_led(seed: int) -> list[str]:
    """Texts of Latin, Cyrillic, Chinese, emoji, accents, digits, control characters and other bytes, but no Arabic."""
    random = np.random.default_rng(seed)
    points = [
        *range(1, 0x250),
        *range(0x370, 0x530),
        *range(0x900, 0x980),
        *range(0x4E00, 0x4E40),
        *range(0x1F600, 0x1F640),
    ]
    found = [" ".join(words(seed, LATIN, 6)) for _ in range(20)]
    found += [" ".join(words(seed, CYRILLIC, 4)) + " 12,5% — café" for _ in range(5)]
    return found + ["".join(map(chr, random.choice(points, 12))) for _ in range(60)]


def assert_sound(first: dict[str, Any], union: Union) -> None:
    """Ids are dense and the first's own unchanged, and the library numbers tokens as the file does."""
    made, before = opened(dict(union.value)), opened(first)
    assert sorted(made.get_vocab().values()) == list(range(len(made.get_vocab())))
    assert before.get_vocab().items() <= made.get_vocab().items()
    assert made.get_vocab() == dict(union.tokens)
    kept = {key: value for key, value in union.value.items() if key not in ("model", "added_tokens")}
    assert kept == {key: value for key, value in first.items() if key not in ("model", "added_tokens")}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_union_of_bytes_keeps_its_promises(seed: int) -> None:
    texts = [lines(words(seed, letters, 600), seed) for letters in (LATIN, ARABIC, CYRILLIC)]
    first = by_bytes([*texts[0], *texts[2], *texts[1][:8]], 480, ("<|end|>", "<|pad|>"))
    second = by_bytes([*texts[1], *texts[0][:10]], 620, ("<s>", "<|end|>"))

    union = joined(first, second)

    assert_sound(first, union)
    before, theirs, made = opened(first), opened(second), opened(dict(union.value))
    for text in without_led(seed):
        assert ids(made, text) == ids(before, text), repr(text)
    for word in [*words(seed, ARABIC, 150), *words(seed + 100, ARABIC, 150, 12)]:
        for spelt in (word, " " + word):
            assert len(ids(made, spelt)) <= len(ids(theirs, spelt)), spelt
            assert made.decode(ids(made, spelt)) == spelt
    mixed = " ".join([*words(seed, ARABIC, 9), *words(seed, LATIN, 9), "٪ 5،", "é"])
    assert made.decode(ids(made, mixed)) == mixed
    assert made.token_to_id("<s>") == len(union.tokens) - 1
    (what,) = union.joined
    assert what.leaders.second == {"ARABIC"}
    assert (what.added, bool(what.imported.entries)) == (1, True)
    assert [what.imported.impossible, what.imported.unmade] == [0, 0]


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_a_first_of_bytes_takes_a_second_of_characters(seed: int) -> None:
    texts = [lines(words(seed, letters, 600), seed) for letters in (LATIN, ARABIC)]
    first = by_bytes([*texts[0], *texts[1][:8]], 450)
    second = by_characters(texts[1], 420)

    union = joined(first, second)

    assert_sound(first, union)
    before, theirs, made = opened(first), opened(second), opened(dict(union.value))
    for text in without_led(seed):
        assert ids(made, text) == ids(before, text), repr(text)
    for word in words(seed, ARABIC, 200):
        assert len(ids(made, " " + word)) <= len(ids(theirs, word)), word
        assert made.decode(ids(made, " " + word)) == " " + word
    own = union.own[1]
    whole = [token for token in union.tokens if token in own]
    assert {own[token] for token in whole} <= set(theirs.get_vocab().values())
    assert own[made.id_to_token(ids(made, " " + ARABIC[3])[0])] == theirs.token_to_id("▁" + ARABIC[3]) or seed


@pytest.mark.parametrize("seed", SEEDS[:3])
def test_characters_with_bytes_to_fall_back_on_are_joined_likewise(seed: int) -> None:
    texts = [lines(words(seed, letters, 600), seed) for letters in (LATIN, ARABIC)]
    first, second = by_characters(texts[0], 500, fallback=True), by_characters(texts[1], 640, fallback=True)

    union = joined(first, second)

    assert_sound(first, union)
    before, theirs, made = opened(first), opened(second), opened(dict(union.value))
    for text in without_led(seed):
        assert ids(made, text) == ids(before, text), repr(text)
    for word in words(seed, ARABIC, 200):
        assert len(ids(made, word)) <= len(ids(theirs, word)), word
        assert made.decode(ids(made, word)) == word


def test_a_third_tokenizer_is_joined_behind_the_second() -> None:
    texts = [lines(words(3, letters, 500)) for letters in (LATIN, ARABIC, CYRILLIC)]
    first, second, third = (by_bytes(text, 450) for text in texts)

    union = joined(first, second, third)

    assert_sound(first, union)
    assert [what.leaders.second for what in union.joined] == [{"ARABIC"}, {"CYRILLIC"}]
    made, theirs = opened(dict(union.value)), opened(third)
    for word in words(3, CYRILLIC, 100):
        assert len(ids(made, word)) <= len(ids(theirs, word))
    assert union.own[2].keys() == theirs.get_vocab().keys()


def test_few_tokens_of_a_script_lead_nothing() -> None:
    text = lines(words(1, LATIN, 400))
    union = joined(by_bytes(text, 400), by_bytes([*text, " ".join(ARABIC[:5])], 410))
    assert union.joined[0].leaders.second == frozenset()
    assert union.joined[0].imported.entries == []


def test_entries_that_no_merge_makes_are_taken_where_both_ignore_merges() -> None:
    first, second = (by_bytes(lines(words(2, letters, 500)), 450) for letters in (LATIN, ARABIC))
    whole = opened(second).pre_tokenizer.pre_tokenize_str("".join(ARABIC[:9]))[0][0]
    second["model"]["vocab"][whole] = len(second["model"]["vocab"])
    second["model"]["ignore_merges"] = True
    alone = joined(first, second)
    assert whole not in alone.tokens
    assert alone.joined[0].imported.unmade == 1

    first["model"]["ignore_merges"] = True
    union = joined(first, second)
    assert opened(dict(union.value)).encode("".join(ARABIC[:9])).tokens == [whole]


def test_pieces_of_scripts_that_the_second_leads_have_its_scores() -> None:
    texts = [lines(words(5, letters, 500)) for letters in (LATIN, ARABIC)]
    first, second = of_pieces([*texts[0], *texts[1][:30]], 260), of_pieces(texts[1], 300)

    union = joined(first, second)

    assert_sound(first, union)
    before, theirs, made = opened(first), opened(second), opened(dict(union.value))
    for text in texts[0]:
        assert ids(made, text) == ids(before, text)
    counts = [sum(len(ids(tokenizer, text)) for text in texts[1]) for tokenizer in (before, theirs, made)]
    assert counts[2] <= counts[1] * 1.03 < counts[0]
    scores, own = dict(union.value["model"]["vocab"]), dict(second["model"]["vocab"])
    arabic = [piece for piece in own if set(piece) & set(ARABIC)]
    assert all(scores[piece] == own[piece] for piece in arabic)


def test_word_pieces_of_scripts_that_the_second_leads_are_taken() -> None:
    texts = [lines(words(6, letters, 500)) for letters in (LATIN, ARABIC)]
    first, second = of_words(texts[0], 250), of_words(texts[1], 300)

    union = joined(first, second)

    assert_sound(first, union)
    before, theirs, made = opened(first), opened(second), opened(dict(union.value))
    for text in texts[0]:
        assert ids(made, text) == ids(before, text)
    for text in texts[1]:
        assert made.encode(text).tokens == theirs.encode(text).tokens


TEXTS = [lines(words(7, letters, 200)) for letters in (LATIN, ARABIC)]


def changed(value: dict[str, Any], **model: Any) -> dict[str, Any]:
    return {**value, "model": {**value["model"], **model}}


def strip_accents(value: dict[str, Any]) -> dict[str, Any]:
    parts = [{"type": "NFD"}, {"type": "StripAccents"}]
    return {**value, "normalizer": {"type": "Sequence", "normalizers": parts}}


def with_added(value: dict[str, Any]) -> dict[str, Any]:
    token = {"id": len(value["model"]["vocab"]), "content": "<x>", "single_word": False, "lstrip": False}
    return {**value, "added_tokens": [{**token, "rstrip": False, "normalized": False, "special": True}]}


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (by_bytes(TEXTS[0], 300), of_words(TEXTS[1], 200), "is a WordPiece tokenizer, and that of 'm0' a BPE one"),
        (by_characters(TEXTS[0], 200), by_bytes(TEXTS[1], 320), "half a letter cannot be expressed. Give 'm1' as base_model"),
        (by_bytes(TEXTS[0], 300), changed(by_bytes(TEXTS[1], 300), dropout=0.1), "drops merges at random (dropout 0.1). Set it"),
        (changed(by_bytes(TEXTS[0], 300), end_of_word_suffix="</w>"), by_bytes(TEXTS[1], 300), "end_of_word_suffix '</w>'"),
        (changed(of_words(TEXTS[0], 200), continuing_subword_prefix="@@"), of_words(TEXTS[1], 200), "('##' and '@@')"),
        (with_added(of_pieces(TEXTS[0], 120)), of_pieces(TEXTS[1], 160), "has added tokens behind its pieces"),
        (by_bytes(TEXTS[0], 300), changed(by_bytes(TEXTS[1], 300), merges=[["a", "ا"]]), "its merge of 'a' and 'ا' is not of tokens"),
        (strip_accents(by_bytes(TEXTS[0], 300)), by_bytes(TEXTS[1], 400), "has a normaliser that makes 'ا' of 'آ'"),
    ],
    ids=["types", "characters first", "dropout", "suffix", "prefixes", "behind pieces", "merges", "normaliser"],
)  # fmt: skip
def test_what_cannot_be_joined_is_refused_with_what_to_do(first: Any, second: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        joined(first, second)
    assert words in str(caught.value)
    assert all(len(str(problem)) <= 300 for problem in caught.value.problems)


@pytest.mark.parametrize(
    "value",
    [
        [], {}, {"model": []}, {"model": {"type": "BPE", "vocab": 5}}, {"model": {"type": "BPE", "vocab": {"a": -1}}},
        {"model": {"type": "BPE", "vocab": {"a": True}}}, {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [[1, 2]]}}, {"model": {"type": "Other", "vocab": {}}},
        {"model": {"type": "Unigram", "vocab": [["a", "b"]]}}, {"model": {"type": "Unigram", "vocab": [["a", 0], ["a", 1]]}},
        {"model": {"type": "BPE", "vocab": {"a": 0}}, "added_tokens": [{"id": "1", "content": "x"}]},
        {"model": {"type": "BPE", "vocab": {"a": 0}}, "added_tokens": 3},
        {"model": {"type": "BPE", "vocab": {"a" * 70_000: 0}}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "a"]] * ((1 << 20) + 1)}},
    ],
)  # fmt: skip
def test_unsound_files_are_refused(value: Any) -> None:
    with pytest.raises(
        InputError, match=r"m/tokenizer\.json: (is no sound tokenizer|has a model of type|has more than)"
    ):
        document_of(value, "m", "m/tokenizer.json")


@pytest.mark.parametrize("part", [5, [5], {"pretokenizers": 5}, {"pretokenizers": [5]}, {"decoders": "ByteLevel"}])
def test_parts_of_another_form_are_no_bytes(part: Any) -> None:
    value = {"model": {"type": "BPE", "vocab": {"a": 0}}, "pre_tokenizer": part, "decoder": part}

    assert not document_of(value, "m", "m/tokenizer.json").by_bytes
