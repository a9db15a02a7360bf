"""What each model of a merge says of its rows: how many there are, and which token is which."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import field, frozen
from modelmerger import (
    Checkpoint,
    FileIdentity,
    InputError,
    Problem,
    identify_beside,
    is_embedding,
    is_head,
    list_directory,
    read_beside,
    read_json,
    shown,
)

from modelmerger_plugins.chat_templates import CONFIG, is_template
from modelmerger_plugins.tokenizer.kinds import SAYING_ELSE, tokenizer_files
from modelmerger_plugins.tokenizer.rows.matrices import row_count
from modelmerger_plugins.tokenizer.rows.reserved import is_reserved
from modelmerger_plugins.tokenizer.vocabularies import (
    ADDED,
    FAST,
    LIMIT,
    MOST_TOKENS,
    MOST_VALUES,
    Vocabulary,
    listed_tokens,
    vocabulary_alone,
    vocabulary_of,
)

PLAIN = (FAST, "vocab.json", "vocab.txt")
"""The files whose rows are those of the embedding, the first that there is."""
BROKEN = (InputError, ValueError, LookupError, TypeError, AttributeError)


@frozen(eq=False, repr=False)
class OfModel:
    """What is known of one model's rows."""

    checkpoint: Checkpoint
    """The model."""
    rows: int | None
    """How many rows its embedding has; None where it has none."""
    tokens: Mapping[str, int] | None
    """Token → row; None where no file says it."""
    directory: Path | None = None
    """Where its tokenizer is; None where that does not say what its tokens are."""
    file: str = ""
    """The name of the file that says it, or would."""
    flaw: str = ""
    """What is wrong with that file, where it does not: a sentence about it without its subject and its end."""
    cutting: Mapping[str, str] = field(factory=dict)
    """What else decides where its tokenizer cuts texts: each part's name → a digest of it."""

    @property
    def place(self) -> str:
        """Where the tokens stand, for messages."""
        return f"{self.directory}/{self.file}" if self.directory is not None else self.checkpoint.place

    @property
    def identities(self) -> tuple[FileIdentity, ...]:
        """The files that say what the tokens are, as they are now."""
        names = [] if self.directory is None else [self.file, ADDED, CONFIG]
        present = [] if self.directory is None else list_directory(self.directory)
        return tuple(
            identify_beside(self.directory, name, LIMIT) for name in names if self.directory and name in present
        )


def of_models(checkpoints: Sequence[Checkpoint]) -> list[OfModel]:
    """What is known of each model. Files with the same bytes are read once.

    Raises `InputError` where two files of a model disagree about a token.
    """
    read: dict[str, Vocabulary] = {}
    return [_of_model(checkpoint, read) for checkpoint in checkpoints]


def tokenizer_directory(checkpoint: Checkpoint) -> Path | None:
    """Where the tokenizer is that goes with the rows of a model.

    An adapter's own counts only where the adapter changes the embedding or the head, and where its files say what the
    tokens are; else its base's does.
    """
    own = checkpoint.donor.directory
    if checkpoint.base is None:
        return own
    changes_rows = any(is_embedding(name) or is_head(name) for name in checkpoint.changes)
    says = changes_rows and any(not is_template(name) and name not in SAYING_ELSE for name in tokenizer_files(own))
    return own if says else checkpoint.base.checkpoint.donor.directory


def _of_model(checkpoint: Checkpoint, read: dict[str, Vocabulary]) -> OfModel:
    rows = row_count(checkpoint)
    if checkpoint.donor.vocabulary is not None:
        return OfModel(checkpoint, rows, checkpoint.donor.vocabulary)
    directory = tokenizer_directory(checkpoint)
    if directory is None or rows is None:
        return OfModel(checkpoint, rows, None)
    file = ""
    try:
        present = list_directory(directory)
        file = next((name for name in PLAIN if name in present), "")
        if not file:
            return OfModel(checkpoint, rows, None)
        listed = listed_tokens(directory)
        key = _digest(directory, [name for name in (*PLAIN, ADDED) if name in present]) + repr(sorted(listed.items()))
        if key not in read:
            read[key] = _tokens(directory, file, present, listed)
    except _DisagreeingFilesError:
        raise
    except BROKEN as error:
        said = error.problems[0].message if isinstance(error, InputError) else "is of another form"
        return OfModel(checkpoint, rows, None, file=file, flaw=said.rstrip(".") if file else "")
    if not read[key].rows:
        return OfModel(checkpoint, rows, None, file=file, flaw="holds no token")
    return OfModel(checkpoint, rows, read[key].rows, directory, file, cutting=read[key].cutting)


class _DisagreeingFilesError(InputError):
    """Two files of a model say otherwise of one token."""


def _digest(directory: Path, names: Sequence[str]) -> str:
    hasher = hashlib.blake2b()
    for name in names:
        hasher.update(f"{name}\0".encode() + hashlib.blake2b(read_beside(directory, name, LIMIT) or b"").digest())
    return hasher.hexdigest()


def _tokens(directory: Path, file: str, present: Sequence[str], listed: Mapping[str, int]) -> Vocabulary:
    """What a file says, with tokens that others add. Raises what cannot be read, and contradictions.

    listed: the added tokens that tokenizer_config.json lists.
    """
    found = vocabulary_of(directory, [file])
    rows: Mapping[str, int] = {} if found is None else found.rows
    if found is None or len(rows) > MOST_TOKENS:
        raise InputError(f"has {len(rows):,} tokens, as no vocabulary has")
    for token, row in rows.items():
        if type(row) is not int or row < 0 or type(token) is not str:
            raise InputError(f"gives {shown(repr(token), 30)} the row {shown(repr(row), 30)}")
    said = {name: _of_json(directory, name) for name in ("vocab.json", ADDED) if name in present and name != file}
    own = rows if file == FAST else vocabulary_alone(directory, file)
    for other, entries in {**said, CONFIG: listed}.items():
        _check_agreement(directory, file, own, other, entries)
    return found


def _check_agreement(directory: Path, file: str, rows: Mapping[str, int], other: str, said: Mapping[str, int]) -> None:
    """Raises `_DisagreeingFilesError` for a token that is another row in the other file, and for a row that is another
    added token there.
    """
    message = ""
    for token, row in said.items():
        if rows.get(token, row) != row:
            message = f"says that {shown(token, 40)!r} is token {row}, and {file} says {rows[token]}."
            break
    unknown = [token for token in said if token not in rows and not is_reserved(token)]
    if not message and unknown and other != "vocab.json":
        names = {row: token for token, row in rows.items()}
        for token in unknown:
            name = names.get(said[token], token)
            if name != token and not is_reserved(name):
                message = f"says that token {said[token]} is {shown(token, 40)!r}, and {file} says {shown(name, 40)!r}."
                break
    if message:
        advice = "Which is it? Save the tokenizer anew with transformers, or remove the file that is wrong."
        raise _DisagreeingFilesError(Problem(f"{message} {advice}", f"{directory}/{other}"))


def _of_json(directory: Path, name: str) -> Mapping[str, int]:
    """Token → row of a file that holds nothing else; empty for one that cannot be read, which is said elsewhere."""
    try:
        value = read_json(read_beside(directory, name, LIMIT) or b"{}", name, unique=False, nodes=MOST_VALUES)
        return {token: row for token, row in value.items() if type(row) is int}
    except BROKEN:
        return {}
