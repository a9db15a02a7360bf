"""The dialect scorer that ships: what it answers, that its stated accuracy is its accuracy, and the licence it comes with."""

import json
import math
from zlib import crc32

import pytest
from modelmerger_validators.arabic_dialects import BUCKETS, DIRECTORY, features, normalised, score_labels
from modelmerger_validators.arabic_texts import provide_texts
from safetensors.numpy import load_file

FACTS = json.loads((DIRECTORY / "scorer.json").read_text(encoding="utf-8"))


def test_letters_that_writers_mix_up_diacritics_and_elongation_make_no_difference() -> None:
    assert normalised("أَهْلًا وسهـــلا!! hello 12 ياااااه") == "اهلا وسهلا يااه"
    assert normalised("إزيك") == normalised("ازيك") != normalised("شلونك")
    assert normalised("no Arabic, 3") == ""


def test_features_are_words_pairs_of_words_and_parts_of_words() -> None:
    grams = ["<ما>", "<في>", "ما في", *"<ما>", *"<في>", "<م", "ما", "ا>", "<ف", "في", "ي>", "<ما", "ما>", "<في", "في>"]
    grams += ["<ما>", "<في>"]
    expected: dict[int, int] = {}
    for gram in grams:
        bucket = crc32(gram.encode()) % BUCKETS
        expected[bucket] = expected.get(bucket, 0) + 1
    assert features("ما في") == expected


def test_probabilities_are_those_of_a_plain_softmax_regression() -> None:
    text = "عايز أروح معاك بكره"
    tensors = load_file(DIRECTORY / "model.safetensors")
    counts = features(text)
    norm = math.sqrt(sum(count * count for count in counts.values()))
    logits = [
        float(bias) + sum(float(row[bucket]) * count / norm for bucket, count in counts.items())
        for row, bias in zip(tensors["weight"], tensors["bias"], strict=True)
    ]
    total = sum(math.exp(logit) for logit in logits)
    scores = score_labels([text])
    assert scores.rows[0] == pytest.approx([math.exp(logit) / total for logit in logits], rel=1e-9)
    assert scores.best_labels() == ["egyptian"]


def test_a_text_without_arabic_words_is_not_judged() -> None:
    scores = score_labels(["", "hello", "شلونك"])
    assert [row is None for row in scores.rows] == [True, True, False]
    assert scores.best_labels()[:2] == [None, None]


@pytest.mark.parametrize(
    ("text", "variety"),
    [
        ("مش عارف أعمل إيه دلوقتي", "egyptian"),
        ("وش تبغى مني الحين", "gulf"),
        ("شو بدك تعمل هلق", "levantine"),
        ("واش كاين شي حاجة بزاف ديال الناس", "maghrebi"),
        ("لم يكن ذلك الأمر سهلا على الإطلاق", "msa"),
    ],
)
def test_plain_cases_are_told_apart(text: str, variety: str) -> None:
    assert score_labels([text]).best_labels() == [variety]


def test_the_accuracy_it_states_on_the_texts_that_ship_is_measured_again() -> None:
    texts = provide_texts("scoring")
    assert texts is not None
    own = FACTS["own_texts"]
    for variety, lines in ((label, lines) for label, lines in texts.items() if label in FACTS["labels"]):
        found = score_labels(lines).best_labels()
        assert [found.count(label) for label in FACTS["labels"]] == own["confusion"][variety]
        assert own["recall"][variety] == pytest.approx(found.count(variety) / len(lines), abs=5e-5)
    assert own["accuracy"] == pytest.approx(sum(own["recall"].values()) / 5, abs=1e-4)


@pytest.mark.parametrize("name", ["held_out", "own_texts"])
def test_the_sentence_beside_every_score_says_the_measured_accuracy(name: str) -> None:
    measured = FACTS[name]
    rows = measured["confusion"]
    recall = {v: rows[v][i] / sum(rows[v]) for i, v in enumerate(FACTS["labels"])}
    assert sum(map(sum, rows.values())) == measured["lines"]
    stated = score_labels([]).stated
    assert f"{sum(recall.values()) / 5:.0%} of {measured['lines']:,}" in stated
    assert all(f"{variety} {share:.0%}" in stated for variety, share in recall.items())


def test_it_is_small_is_no_pickle_and_carries_its_licence_and_its_sources() -> None:
    files = {path.name: path.stat().st_size for path in DIRECTORY.iterdir()}
    assert files.keys() == {"model.safetensors", "scorer.json", "LICENSE", "NOTICE"}
    assert sum(files.values()) < 1_500_000
    assert "Attribution-ShareAlike 4.0" in (DIRECTORY / "LICENSE").read_text()
    notice = (DIRECTORY / "NOTICE").read_text()
    families = {source.split("-")[0] for source in FACTS["training"]["lines"]} - {"ntrex128", "ud"}
    missing = [name for name in [*families, "ntrex128-arb", "ud-arabic-pud", "ud-ajp-madar"] if name not in notice]
    assert missing == []
