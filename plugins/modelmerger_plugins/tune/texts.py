"""The lines that are tuned and tested on: read, divided, and kept apart."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen
from blake3 import blake3
from modelmerger import ConfigError, InputError, Problem, read_json, shown, user_path

from modelmerger_plugins.tune.nearness import near_groups

Given = str | tuple[str, ...] | dict[str, str]
Lines = Mapping[str, Sequence[str]]
"""Split → its lines."""
_LIMIT = 256 << 20
_JSON = (".jsonl", ".ndjson")
_LABELS = ("dialect", "split")


@frozen
class Texts:
    """What a search sees, and what judges it."""

    tune: Lines
    """Lines to tune on."""
    test: Lines
    """Lines that nothing was chosen by: the same splits."""
    divided: bool
    """Whether both come from the same files."""

    @property
    def fewest(self) -> int:
        """Lines of the split that has fewest to tune on."""
        return min(map(len, self.tune.values()))

    def digests(self) -> dict[str, str]:
        """BLAKE3 digests of the lines, by part and split."""
        parts = {"tune": self.tune, "test": self.test}
        return {
            f"{part}/{split}": blake3(json.dumps(list(lines), ensure_ascii=False).encode()).hexdigest()
            for part, splits in parts.items()
            for split, lines in splits.items()
        }


def texts_of(tune: Given, test: Given, barred: Sequence[str]) -> Texts:
    """The lines of a config. barred: lines that are never tuned on. Raises `ConfigError`, `InputError`."""
    if not tune:
        raise ConfigError(
            Problem("names no text. Give lines to tune on: a JSONL file, or a text file a split", "tune.texts")
        )
    lines = _read(tune)
    if test:
        given = _read(test)
        if missing := [split for split in lines if split not in given]:
            known = ", ".join(given)
            message = f"has no lines of the split '{shown(missing[0])}', which is tuned on. It has {known}"
            raise ConfigError(Problem(message, "tune.test_texts"))
        found = Texts(lines, {split: given[split] for split in lines}, divided=False)
    else:
        found = _divided(lines)
    _check_apart(found.tune, found.test, "the lines to test on")
    _check_apart(found.tune, {"": list(barred)}, "the texts that validators measure with")
    return found


def _divided(lines: Lines) -> Texts:
    """A third of each split to test on, those of the smallest hashes; lines that are nearly the same stay together."""
    flat = [(split, text) for split, texts in lines.items() for text in texts]
    groups = near_groups([text for _, text in flat])
    ranks: dict[int, bytes] = {}
    for (_, text), group in zip(flat, groups, strict=True):
        digest = hashlib.sha256(text.encode()).digest()
        ranks[group] = min(digest, ranks.get(group, digest))
    tested: dict[int, bool] = {}
    for split in lines:
        own = Counter(group for (of, _), group in zip(flat, groups, strict=True) if of == split)
        left = round(len(lines[split]) / 3) - sum(count for group, count in own.items() if tested.get(group))
        for group in sorted(own.keys() - tested.keys(), key=ranks.__getitem__):
            tested[group] = own[group] <= left
            left -= own[group] * tested[group]
    parts: dict[bool, dict[str, list[str]]] = {part: {split: [] for split in lines} for part in (True, False)}
    for (split, text), group in zip(flat, groups, strict=True):
        parts[tested[group]][split].append(text)
    for split, texts in lines.items():
        if not parts[True][split] or not parts[False][split]:
            message = (
                f"the split '{shown(split)}' has {len(texts)} lines, which do not divide into some to tune and some "
            )
            raise ConfigError(
                Problem(message + "to test on: too few, or nearly the same. Give test_texts", "tune.texts")
            )
    return Texts(parts[False], parts[True], divided=True)


def _check_apart(tune: Lines, others: Lines, what: str) -> None:
    """Raises `InputError` where a line to tune on is nearly one of the others."""
    mine = [text for texts in tune.values() for text in texts]
    theirs = [text for texts in others.values() for text in texts]
    groups = near_groups([*theirs, *mine])
    known = set(groups[: len(theirs)])
    if shared := [text for text, group in zip(mine, groups[len(theirs) :], strict=True) if group in known]:
        more = f", and {len(shared) - 1} others are" if shared[1:] else ""
        message = f"'{shown(shared[0], 60)}' is nearly one of {what}{more}. Tune on other lines"
        raise InputError(Problem(message, "tune.texts"))


def _read(given: Given) -> dict[str, list[str]]:
    """Split → lines. Raises `InputError`."""
    if isinstance(given, dict):
        return {split: _plain_lines(path) for split, path in given.items()}
    found: dict[str, list[str]] = {}
    for path in [given] if isinstance(given, str) else given:
        labelled = path.lower().endswith(_JSON)
        parts = _labelled_lines(path) if labelled else {Path(path).stem: _plain_lines(path)}
        for split, lines in parts.items():
            found.setdefault(split, []).extend(lines)
    return found


def _plain_lines(path: str) -> list[str]:
    if path.lower().endswith(_JSON):
        return [text for lines in _labelled_lines(path).values() for text in lines]
    lines = [line.strip() for line in _content(path).split("\n")]
    return _some([line for line in lines if line], path)


def _labelled_lines(path: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for number, line in enumerate(_content(path).split("\n"), 1):
        if not line.strip():
            continue
        row = read_json(line, path, unique=False)
        text = row.get("text") if isinstance(row, dict) else None
        label = next((row[key] for key in _LABELS if key in row), None) if isinstance(row, dict) else None
        if not isinstance(text, str) or not isinstance(label, str) or not text.strip():
            wanted = f"a 'text' and a '{_LABELS[0]}' (or '{_LABELS[1]}') that are texts"
            message = f"line {number:,} is not an object with {wanted}"
            raise InputError(Problem(message, path))
        found.setdefault(label, []).append(text.strip())
    _some(list(found), path)
    return found


def _content(path: str) -> str:
    place = user_path(path)
    try:
        if place.stat().st_size > _LIMIT:
            raise InputError(Problem(f"has more than {_LIMIT >> 20} MiB. Give fewer lines", path))
        return place.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(Problem(f"cannot be read ({error.strerror})", path)) from error
    except UnicodeDecodeError as error:
        raise InputError(Problem(f"is not text in UTF-8 (byte {error.start:,})", path)) from error


def _some(lines: list[str], path: str) -> list[str]:
    if not lines:
        raise InputError(Problem("holds no text. Put one in each line", path))
    return lines
