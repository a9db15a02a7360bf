"""The document of a union of BPE tokenizers."""

import json

from modelmerger_plugins.tokenizer.union.documents import document_of, with_tokens
from tokenizers import Tokenizer, models, trainers

from tests.plugins.tokenizer.union.test_union import TEXTS, ids, joined, opened
from tests.plugins.tokenizer.union.trained import ARABIC, LATIN, by_bytes, by_characters, lines, words


def test_merges_of_tokens_with_spaces_are_lists_whatever_the_firsts_are() -> None:
    first = by_characters(TEXTS[0], 200)
    first["model"]["vocab"][" "] = len(first["model"]["vocab"])
    first["model"]["merges"] = [" ".join(pair) for pair in first["model"]["merges"]]
    of_phrases = Tokenizer(models.BPE())
    of_phrases.train_from_iterator(TEXTS[1], trainers.BpeTrainer(vocab_size=400, show_progress=False))

    union = joined(first, json.loads(of_phrases.to_str()))

    assert any(" " in token.strip() for token in union.tokens)
    assert opened(dict(union.value)).get_vocab() == dict(union.tokens)


def test_merges_stay_texts_where_they_can_be() -> None:
    first, second = (by_bytes(lines(words(4, letters, 400)), 400) for letters in (LATIN, ARABIC))
    due = joined(first, second).value["model"]["merges"]
    first["model"]["merges"] = [" ".join(pair) for pair in first["model"]["merges"]]

    assert joined(first, second).value["model"]["merges"] == [" ".join(pair) for pair in due]


def test_bytes_that_a_normaliser_spells_as_letters_are_no_other_letters() -> None:
    first, second = (by_bytes(lines(words(4, letters, 400)), 400) for letters in (LATIN, ARABIC))
    first |= {"normalizer": {"type": "Sequence", "normalizers": [{"type": "ByteLevel"}]}, "pre_tokenizer": None}

    made = opened(dict(joined(first, second).value))

    word = words(4, ARABIC, 1)[0]
    assert made.decode(ids(made, word)) == word
    assert len(ids(made, word)) <= len(ids(opened(second), word))


def test_tokens_that_another_file_names_are_added_ones() -> None:
    value = by_bytes(TEXTS[0], 300)
    document = document_of(value, "a", "a/tokenizer.json")
    assert with_tokens(document, document.tokens) is document

    made = with_tokens(document, {**document.tokens, "<x>": 300})

    assert opened(dict(made.value)).encode("a<x>b").ids[1] == 300
