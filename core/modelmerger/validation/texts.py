"""What models are scored on and what they are asked: from the config, from a file, or what plugins bring; and how much of it."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from modelmerger.inputs import strict_json
from modelmerger.inputs.files import read_small
from modelmerger.validation.subject import Purpose, Texts
from modelmerger.values.errors import InputError, Problem, UnmeasurableError
from modelmerger.values.labels import DialectScores
from modelmerger.values.settings import ValidationSettings

LIMIT = 256 << 20
LINES = (".jsonl", ".ndjson")
Provide = Callable[[Purpose], Texts]
Score = Callable[[Sequence[str]], DialectScores]


def scored_texts(settings: ValidationSettings, provide: Provide) -> Texts:
    """The texts to score, by variety. Empty where there are none. Raises `InputError` for a dataset that cannot be read."""
    found = read_dataset(settings.dataset) if settings.dataset is not None else _provided(provide, "scoring")
    return spread(found, settings.most_texts)


def asked_prompts(settings: ValidationSettings, provide: Provide, score: Score) -> Texts:
    """The prompts to answer, by variety; a plain list stands under the empty name. Empty where there are none."""
    given = settings.test_prompts
    found: Texts = given if isinstance(given, dict) else {"": given}
    if not given:
        found = _provided(provide, "prompting")
    if settings.quick_test:
        found = {variety: group[:1] if variety else _one_a_variety(group, score) for variety, group in found.items()}
    return spread(found, settings.sample_size)


def read_dataset(path: str) -> Texts:
    """Variety → texts of a file: one a line, or in a `.jsonl` file `{"text": …, "dialect": …}` a line. Raises `InputError`."""
    place = Path(os.path.expanduser(path))
    content = read_small(place, LIMIT)
    try:
        lines = content.decode("utf-8-sig").split("\n")  # a text may hold other ends of lines
    except UnicodeDecodeError as error:
        raise InputError(Problem(f"is no text in UTF-8 (byte {error.start:,}).", path)) from error
    texts: dict[str, list[str]] = {}
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    for number, line in numbered:
        variety, text = _parsed(line, number, path) if place.suffix.lower() in LINES else ("", line)
        texts.setdefault(variety, []).append(text)
    if not texts:
        raise InputError(Problem("holds no text. Put one in each line.", path))
    return texts


def check_dataset(settings: ValidationSettings | None) -> None:
    """Raises `InputError` for a dataset that a validation after the merge could not read."""
    if settings is not None and settings.run_tests and settings.dataset is not None:
        read_dataset(settings.dataset)


def spread(texts: Texts, most: int | None) -> Texts:
    """At most so many texts: as many of each variety as of the others, and each variety's evenly spread over its list."""
    counts = dict.fromkeys(texts, 0)
    left = sum(map(len, texts.values())) if most is None else most
    while left and (open_ := [variety for variety in texts if counts[variety] < len(texts[variety])]):
        for variety in open_[:left]:
            counts[variety] += 1
        left -= len(open_[:left])
    return {
        variety: [group[i * len(group) // counts[variety]] for i in range(counts[variety])]
        for variety, group in texts.items()
        if counts[variety]
    }


def _provided(provide: Provide, purpose: Purpose) -> Texts:
    try:
        return provide(purpose)
    except UnmeasurableError:
        return {}


def _one_a_variety(prompts: Sequence[str], score: Score) -> Sequence[str]:
    """Of prompts whose variety is not given, the first of each variety that the scorer sees in them."""
    try:
        named = score(prompts).named()
    except UnmeasurableError:
        return prompts[:1]
    return [prompts[i] for i, variety in enumerate(named) if variety not in named[:i]]


def _parsed(line: str, number: int, path: str) -> tuple[str, str]:
    try:
        found = strict_json.read(line, path, unique=False)
    except InputError as error:
        raise InputError(
            Problem(f"line {number:,} is no JSON. Write an object with a 'text' in each line.", path)
        ) from error
    text, variety = (found.get("text"), found.get("dialect", "")) if isinstance(found, dict) else (None, "")
    if not isinstance(text, str) or not isinstance(variety, str):
        wanted = "an object with a 'text', and perhaps a 'dialect', that are texts"
        raise InputError(Problem(f"line {number:,} is not {wanted}.", path))
    return variety, text
