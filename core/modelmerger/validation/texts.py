"""What models are scored on and asked, and how much of it: from the config, from a file, or from plugins."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelmerger.inputs.loading import list_directory, resolve_inside
from modelmerger.inputs.regular_files import read_small
from modelmerger.inputs.strict_json import read_json
from modelmerger.values.errors import InputError, Problem, UnmeasurableError
from modelmerger.values.model_reference import user_path
from modelmerger.values.settings import ValidationSettings

if TYPE_CHECKING:
    from modelmerger.values.subject import LabelScores, Purpose, Texts

LIMIT = 256 << 20
LINES = (".jsonl", ".ndjson")
LABEL = "dialect"
"""Where a line of a `.jsonl` dataset gives its label. The key is part of the format, whatever the labels stand for."""
Provide = Callable[["Purpose"], "Texts"]
Score = Callable[[Sequence[str]], "LabelScores"]


def scored_texts(settings: ValidationSettings, provide: Provide) -> "Texts":
    """The texts to score, by label; empty if there are none. Raises `InputError` for a dataset that cannot be read."""
    found = read_dataset(settings.dataset) if settings.dataset is not None else known_texts(provide)
    return chosen(found, settings.most_texts, settings.each, settings.seed)


def asked_prompts(settings: ValidationSettings, provide: Provide, score: Score) -> "Texts":
    """The prompts to answer, by label; a plain list stands under the empty name. Empty where there are none."""
    given = settings.test_prompts
    found: Texts = given if isinstance(given, dict) else {"": given}
    if not given:
        found = _provided(provide, "prompting")
    if settings.quick_test:
        found = {label: group[:1] if label else _one_for_each_label(group, score) for label, group in found.items()}
    return chosen(found, settings.most_prompts, settings.each, settings.seed)


def known_texts(provide: Provide) -> "Texts":
    """The texts to score that plugins have, by label; empty if there are none."""
    return _provided(provide, "scoring")


def read_dataset(path: str) -> "Texts":
    """Label → texts of a file: one in each line, or `{"text": …, LABEL: …}` in each line of a `.jsonl` file.

    Of a folder, the label of a text is the name of its file, `LABEL.txt`. Raises `InputError`.
    """
    place = user_path(path)
    if place.is_dir():
        return _in_folder(place)
    texts: dict[str, list[str]] = {}
    for number, line in _lines(place, path, LIMIT):
        label, text = _parsed(line, number, path) if place.suffix.lower() in LINES else ("", line)
        texts.setdefault(label, []).append(text)
    if not texts:
        raise InputError(Problem("holds no text. Put one in each line.", path))
    return texts


def _in_folder(folder: Path) -> "Texts":
    names = [name for name in list_directory(folder) if name.endswith(".txt") and not name.startswith(".")]
    found, left = {}, LIMIT
    for name in names:
        lines = _lines(resolve_inside(folder / name, folder), str(folder / name), left)
        left -= sum(len(line.encode()) for _, line in lines)
        if lines:
            found[name.removesuffix(".txt")] = [line for _, line in lines]
    if not found:
        raise InputError(
            Problem("holds no texts. Put a file LABEL.txt for each label in it, one text a line", str(folder))
        )
    return found


def _lines(place: Path, path: str, limit: int) -> list[tuple[int, str]]:
    """The lines of a file that hold anything, with their numbers."""
    content = read_small(place, limit)
    try:
        lines = content.decode("utf-8-sig").split("\n")  # a text may hold other ends of lines
    except UnicodeDecodeError as error:
        raise InputError(Problem(f"is not text in UTF-8 (byte {error.start:,}).", path)) from error
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def check_dataset(settings: ValidationSettings | None) -> None:
    """Raises `InputError` for a dataset that a validation after the merge could not read."""
    if settings is not None and settings.run_tests and settings.dataset is not None:
        read_dataset(settings.dataset)


def chosen(texts: "Texts", most: int | None, each: int | None, seed: int) -> "Texts":
    """A sample of the texts: at most `most` in all, as many of each label as of the others, and `each` of a label.

    Which ones follows from the seed and the texts alone; they stand in the order in which they were given.
    """
    room = {label: min(len(group), each or len(group)) for label, group in texts.items()}
    counts = dict.fromkeys(texts, 0)
    left = sum(room.values()) if most is None else most
    while left and (open_ := [label for label in texts if counts[label] < room[label]]):
        for label in open_[:left]:
            counts[label] += 1
        left -= len(open_[:left])
    return {label: _drawn(group, counts[label], seed) for label, group in texts.items() if counts[label]}


def _drawn(group: Sequence[str], count: int, seed: int) -> list[str]:
    def rank(i: int) -> bytes:
        return hashlib.blake2b(f"{seed} {i} {group[i]}".encode(errors="surrogatepass"), digest_size=16).digest()

    return [group[i] for i in sorted(sorted(range(len(group)), key=rank)[:count])]


def _provided(provide: Provide, purpose: "Purpose") -> "Texts":
    try:
        return provide(purpose)
    except UnmeasurableError:
        return {}


def _one_for_each_label(prompts: Sequence[str], score: Score) -> Sequence[str]:
    """Of prompts whose label is not given, the first of each label that the scorer sees in them."""
    try:
        named = score(prompts).best_labels()
    except UnmeasurableError:
        return prompts[:1]
    return [prompts[i] for i, label in enumerate(named) if label not in named[:i]]


def _parsed(line: str, number: int, path: str) -> tuple[str, str]:
    try:
        found = read_json(line, path, unique=False)
    except InputError as error:
        raise InputError(
            Problem(f"line {number:,} is no JSON. Write an object with a 'text' in each line.", path)
        ) from error
    text, label = (found.get("text"), found.get(LABEL, "")) if isinstance(found, dict) else (None, "")
    if not isinstance(text, str) or not isinstance(label, str):
        wanted = f"an object with a 'text', and perhaps a '{LABEL}', that are texts"
        raise InputError(Problem(f"line {number:,} is not {wanted}.", path))
    return label, text
