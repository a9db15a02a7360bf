"""The texts and prompts that ship: enough of them, none twice, Arabic, and none that the example models are measured on."""

import re
from pathlib import Path

import modelmerger_validators
import pytest

DATA = Path(modelmerger_validators.__file__).parent / "data"
HELDOUT = Path(__file__).parents[2] / "examples/dialects/heldout"
VARIETIES = ("egyptian", "gulf", "levantine", "maghrebi", "msa")
OF_THE_API_DESCRIPTION = {
    "egyptian": ["إزيك؟"],
    "gulf": ["شلونك؟"],
    "levantine": ["كيفك؟"],
    "maghrebi": ["كيداير؟"],
    "msa": [
        "مرحبا، كيف حالك؟",
        "اشرح لي مفهوم الذكاء الاصطناعي",
        "مرحبا صديقي، كيف الأحوال؟",
        "حدثني عن يومك",
        "اكتب قصة قصيرة عن الصداقة",
        "اشرح خطوات حل مسألة رياضية",
        "ما هو رأيك في التكنولوجيا الحديثة؟",
    ],
}


def lines(kind: str, variety: str) -> list[str]:
    return (DATA / kind / f"{variety}.txt").read_text(encoding="utf-8").splitlines()


def words(line: str) -> str:
    """The line without punctuation: what makes two lines the same."""
    return " ".join(re.findall(r"\w+", line))


@pytest.mark.parametrize(("kind", "least"), [("texts", 60), ("prompts", 25)])
def test_every_variety_has_enough_and_nothing_twice(kind: str, least: int) -> None:
    others = ["english"] if kind == "texts" else []
    assert sorted(path.stem for path in (DATA / kind).iterdir()) == sorted([*VARIETIES, *others])
    everything = [words(line) for variety in VARIETIES for line in lines(kind, variety)]
    assert len(set(everything)) == len(everything)
    assert min(len(lines(kind, variety)) for variety in VARIETIES) >= least


def test_english_lines_are_english_and_none_stands_twice() -> None:
    found = lines("texts", "english")
    assert len({words(line.lower()) for line in found}) == len(found) >= 60
    assert [line for line in found if not re.fullmatch(r"[A-Z][A-Za-z ,;'?]+[.?]", line)] == []


@pytest.mark.parametrize("variety", VARIETIES)
def test_lines_to_tune_by_are_apart_from_those_that_are_measured(variety: str) -> None:
    tuning = (HELDOUT.parent / f"tuning/{variety}.txt").read_text(encoding="utf-8").splitlines()
    assert len(set(map(words, tuning))) == len(tuning) >= 60
    measured = [*(HELDOUT / f"{variety}.txt").read_text(encoding="utf-8").splitlines(), *lines("texts", variety)]
    runs = {run for line in measured for run in runs_of_words(line)}
    assert [line for line in tuning if runs_of_words(line) & runs] == []


def runs_of_words(line: str) -> set[tuple[str, ...]]:
    """Runs of four words, of which near-duplicates share some."""
    found = words(line).split()
    return {tuple(found[i : i + 4]) for i in range(len(found) - 3)}


@pytest.mark.parametrize("variety", VARIETIES)
@pytest.mark.parametrize("kind", ["texts", "prompts"])
def test_lines_are_arabic_letters_spaces_and_punctuation(kind: str, variety: str) -> None:
    wrong = [line for line in lines(kind, variety) if not re.fullmatch(r"[\u0621-\u064a\u064b-\u0652 .,:!?،؛؟]+", line)]
    assert wrong == []


@pytest.mark.parametrize("variety", VARIETIES)
def test_no_line_is_held_out_text_of_the_example_models(variety: str) -> None:
    held_out = {words(line) for path in HELDOUT.glob("*.txt") for line in path.read_text(encoding="utf-8").splitlines()}
    assert len(held_out) > 300
    assert not held_out & {words(line) for kind in ("texts", "prompts") for line in lines(kind, variety)}


@pytest.mark.parametrize("variety", VARIETIES)
def test_the_prompts_of_the_api_description_are_there(variety: str) -> None:
    assert not set(OF_THE_API_DESCRIPTION[variety]) - set(lines("prompts", variety))
