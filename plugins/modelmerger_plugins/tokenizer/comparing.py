"""Compares the tokenizers of models, whatever their format: the same token must be the same row of the embedding."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen
from modelmerger import Checkpoint, InputError, Problem, identify_beside, read_beside

from modelmerger_plugins.chat_templates import is_template
from modelmerger_plugins.tokenizer.cutting import differing
from modelmerger_plugins.tokenizer.kinds import SAYING_ELSE, tokenizer_files
from modelmerger_plugins.tokenizer.vocabularies import ADDED, FAST, LIMIT, Vocabulary, vocabulary_of

BROKEN = (InputError, ValueError, LookupError, TypeError, AttributeError)


@frozen
class _Difference:
    """How the tokenizer of a model differs from the donor's."""

    what: str = ""
    """In words; empty where the same tokens are the same rows, or nobody knows."""
    file: str = ""
    """The file where it shows."""
    cutting: str = ""
    """What cuts texts otherwise, where the tokens are the same."""


def problems_with_vocabularies(donor: Checkpoint, other: Checkpoint, *, matched: bool = False) -> Iterator[Problem]:
    """Warns about tokens that are other rows of the embedding in another model, which a merge would silently mix up; a
    note where only texts are cut otherwise. matched: whether that has been said.
    """
    found = _difference(donor, other)
    if found.what:
        yield Problem(f"{found.what}, whose tokenizer is taken.", f"{other.place}/{found.file}", severity="warning")
    elif found.cutting and not matched:
        yield Problem(cut_otherwise(donor, found.cutting), f"{other.place}/{FAST}", severity="note")


def cut_otherwise(donor: Checkpoint, parts: str) -> str:
    """A sentence about a tokenizer that has other parts."""
    return f"cuts texts otherwise than '{donor.name}', whose tokenizer is taken: other {parts}."


def difference_of_vocabularies(donor: Checkpoint, other: Checkpoint) -> str:
    """How the vocabulary of a model differs from the donor's, in words; empty where it does not, or nobody knows."""
    return _difference(donor, other).what


def difference_of_files(ours: Vocabulary, name: str, directory: Path) -> str:
    """How what the files of a directory say differs from the vocabulary of a model, in words; empty where it does not,
    or nobody knows.
    """
    try:
        theirs = vocabulary_of(directory)
        moved = 0 if theirs is None else _moved(ours, theirs)
    except BROKEN:
        return f"cannot be compared with that of '{name}'"
    return _other_rows(moved, name) if moved else ""


def _other_rows(count: int, name: str) -> str:
    return f"{count:,} tokens stand for other rows of the embedding than in '{name}'"


def _difference(donor: Checkpoint, other: Checkpoint) -> _Difference:
    if not (_says_its_vocabulary(donor) and _says_its_vocabulary(other)):
        return _Difference()
    shared, others = _files_in_common(donor, other)
    if donor.donor.vocabulary is None and other.donor.vocabulary is None and not others and shared:
        return _Difference()
    try:
        ours, theirs = _vocabulary(donor), _vocabulary(other)
        moved = 0 if ours is None or theirs is None else _moved(ours, theirs)
    except BROKEN:
        return _Difference(f"cannot be compared with that of '{donor.name}'", FAST)
    cutting = ""
    if ours is not None and theirs is not None:
        if moved:
            return _Difference(_other_rows(moved, donor.name), theirs.file)
        others = [name for name in others if name not in (FAST, ADDED, ours.file, theirs.file)]
        if ours.file == theirs.file == FAST:
            others = []  # it holds what the other files do
        cutting = differing(ours.cutting, theirs.cutting)
    return _Difference(f"differs from that of '{donor.name}'", others[0]) if others else _Difference(cutting=cutting)


def _says_its_vocabulary(checkpoint: Checkpoint) -> bool:
    directory = checkpoint.donor.directory
    return checkpoint.donor.vocabulary is not None or (directory is not None and bool(_vocabulary_files(directory)))


def _files_in_common(donor: Checkpoint, other: Checkpoint) -> tuple[list[str], list[str]]:
    """The files of the vocabulary that both models have, and those of them that differ."""
    ours, theirs = donor.donor.directory, other.donor.directory
    if ours is None or theirs is None or ours == theirs:
        return [], []
    shared = [name for name in _vocabulary_files(ours) if name in _vocabulary_files(theirs)]
    return shared, [name for name in shared if not _same(ours, theirs, name)]


def _vocabulary_files(directory: Path) -> list[str]:
    return [name for name in tokenizer_files(directory) if name not in SAYING_ELSE and not is_template(name)]


def _same(ours: Path, theirs: Path, name: str) -> bool:
    """Whether a file is the same in both directories. One that cannot be read is refused elsewhere."""
    try:
        if identify_beside(ours, name, LIMIT).size != identify_beside(theirs, name, LIMIT).size:
            return False
        return read_beside(ours, name, LIMIT) == read_beside(theirs, name, LIMIT)
    except InputError:
        return True


def _vocabulary(checkpoint: Checkpoint) -> Vocabulary | None:
    """A view's vocabulary, or that of the tokenizer's files."""
    if checkpoint.donor.vocabulary is not None:
        return Vocabulary(FAST, checkpoint.donor.vocabulary)
    directory = checkpoint.donor.directory
    return None if directory is None else vocabulary_of(directory)


def _moved(ours: Vocabulary, theirs: Vocabulary) -> int:
    left, right = ours.rows, theirs.rows
    if (ours.exact and theirs.exact) or ours.file == theirs.file:
        return sum(1 for token, row in right.items() if left.get(token, row) != row) + len(left.keys() ^ right.keys())
    return _out_of_order(left, right)


def _out_of_order(left: Mapping[str, int], right: Mapping[str, int]) -> int:
    """Tokens of both that do not follow each other in the same order, special ones aside.

    A sentencepiece model stands beside rows that are moved by the special tokens of the model that uses it.
    """
    common = [token for token in left if token in right and not (token.startswith("<") and token.endswith(">"))]
    rows = [right[token] for token in sorted(common, key=lambda token: left[token])]
    return sum(1 for before, after in zip(rows, rows[1:], strict=False) if after <= before)
