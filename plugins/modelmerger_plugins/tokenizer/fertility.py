"""Measures tokenizers on lines of text, in a process of its own: tokenizers are programs of the models'."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from modelmerger import Figures, Problem, read_beside
from tokenizers import Tokenizer

from modelmerger_plugins.tokenizer.vocabularies import FAST, LIMIT

MERGED, LINES = "merged model", "lines"
Texts = Mapping[str, Sequence[str]]


@frozen
class _Cut:
    """What a tokenizer makes of the lines of each label."""

    ids: Mapping[str, Sequence[Sequence[int]]]
    """Of each line."""
    tokens: Mapping[str, Sequence[Sequence[str]]]
    """The same as they are spelt."""
    words: Mapping[str, int]
    """In all lines."""
    whole: Mapping[str, int]
    """Lines that come back as they were."""

    @property
    def fertility(self) -> dict[str, float]:
        """Tokens per word; labels without words are left out."""
        return {
            label: round(sum(map(len, lines)) / self.words[label], 4)
            for label, lines in self.ids.items()
            if self.words[label]
        }


def measured(asked: Mapping[str, Any]) -> Iterator[Figures | Problem]:
    """Tables for the report, and a note.

    asked: files (directory, names of the models whose tokenizer is in it), source (the name of the model whose
    vocabulary is taken), union (the tokenizer.json that is written, or None for the source's), imported (ids of the
    union that the source lacks), texts (label → lines).
    """
    texts: Texts = asked["texts"]
    found: dict[str, _Cut] = {}
    for directory, names in asked["files"]:
        cut = _cut(_tokenizer((read_beside(Path(directory), FAST, LIMIT) or b"").decode()), texts)
        found |= dict.fromkeys(names, cut)
    source = found[asked["source"]]
    union = None if asked["union"] is None else _tokenizer(asked["union"])
    merged = source if union is None else _cut(union, texts)
    counts = {LINES: {label: len(lines) for label, lines in texts.items()}}
    every = {**found, MERGED: merged}
    yield Figures("tokens per word", counts | {name: cut.fertility for name, cut in every.items()})
    yield Figures("lines that come back as they were", counts | {name: dict(cut.whole) for name, cut in every.items()})
    if union is not None:
        same = {
            label: sum(ours == theirs for ours, theirs in zip(lines, source.tokens[label], strict=True))
            for label, lines in merged.tokens.items()
        }
        yield Figures(f"lines cut as by '{asked['source']}'", counts | {MERGED: same})
        if asked["imported"]:
            yield Figures("imported tokens", {MERGED: _of_imported(union, merged, asked["imported"])})
    yield from _note(every, counts[LINES])


def _tokenizer(content: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(content)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _cut(tokenizer: Tokenizer, texts: Texts) -> _Cut:
    encodings = {label: tokenizer.encode_batch(list(lines), add_special_tokens=False) for label, lines in texts.items()}
    ids = {label: [encoding.ids for encoding in group] for label, group in encodings.items()}
    back = {label: tokenizer.decode_batch(group, skip_special_tokens=False) for label, group in ids.items()}
    return _Cut(
        ids,
        {label: [encoding.tokens for encoding in group] for label, group in encodings.items()},
        {label: sum(len(line.split()) for line in lines) for label, lines in texts.items()},
        {label: sum(map(str.__eq__, lines, back[label])) for label, lines in texts.items()},
    )


def _of_imported(union: Tokenizer, merged: _Cut, imported: Sequence[int]) -> dict[str, float]:
    """How many there are, how many the lines use, and how many of those that are whole text are cut to themselves."""
    used = {number for lines in merged.ids.values() for line in lines for number in line}.intersection(imported)
    texts = [union.decode([number], skip_special_tokens=False) for number in imported]
    whole = [(number, text) for number, text in zip(imported, texts, strict=True) if text and "\ufffd" not in text]
    cut = union.encode_batch([text for _, text in whole], add_special_tokens=False)
    themselves = sum(encoding.ids == [number] for (number, _), encoding in zip(whole, cut, strict=True))
    return {
        "tokens": len(imported),
        "used in these lines": len(used),
        "share used": round(len(used) / len(imported), 4),
        "whole text": len(whole),
        "of these, cut to themselves": themselves,
    }


def _note(cuts: Mapping[str, _Cut], lines: Mapping[str, int]) -> Iterator[Problem]:
    """A sentence about the label on which the models differ most."""
    labels = [label for label in lines if all(label in cut.fertility for cut in cuts.values())]
    found = {label: {name: cut.fertility[label] for name, cut in cuts.items()} for label in labels}
    most = max(found, key=lambda label: max(found[label].values()) - min(found[label].values()), default=None)
    if most is None:
        return
    ours = found[most][MERGED]
    others = {name: value for name, value in found[most].items() if name != MERGED}
    low, high = min(others, key=lambda name: others[name]), max(others, key=lambda name: others[name])
    said = " and ".join(f"{others[name]:.2f} by '{name}'" for name in dict.fromkeys([low, high]))
    message = (
        f"a word of {most} is cut into {ours:.2f} tokens by the merged model, {said} ({lines[most]} lines). "
        "The figures of all texts are in modelmerger.json."
    )
    yield Problem(message, severity="note")
