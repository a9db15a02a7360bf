"""The donor's tokenizer and processor files, copied byte for byte; nothing in them is executed or rendered."""

import os
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from attrs import field, frozen
from modelmerger import (
    PICKLED_SUFFIXES,
    TEMPLATES_FOLDER,
    TOKENIZER_FILES,
    Checkpoint,
    MergePlan,
    Problem,
    Settings,
    check_beside,
    hookimpl,
    is_plain_path,
    list_directory,
    must_be_available,
    read_beside,
)

LIMIT = 256 << 20
CODE = (".py", ".pyc", ".so", ".sh", ".joblib", ".npy", ".npz", *PICKLED_SUFFIXES)


@frozen(kw_only=True)
class Options:
    """Options about the vocabulary of the merged model."""

    preserve_tokenizer: bool = True
    """Whether the donor's tokenizer files are copied."""
    tokenizer_source: str = field(default="base", validator=must_be_available("base"))
    """Which model's vocabulary the merged model has."""
    missing_tokens: str = field(default="mean_subtokens", validator=must_be_available("mean_subtokens"))
    """The embedding of tokens that a model lacks."""


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint], settings: Settings, options: Options) -> Iterable[Problem]:
    """A note if the donor has no tokenizer to copy, an error for each of its files that cannot be copied.

    Nothing about a merge within another one, whose donor gives no files unless it is the outer one's too.
    """
    if not options.preserve_tokenizer or settings.where:
        return
    donor = checkpoints[settings.donor]
    files = _files(donor.donor.directory)
    if donor.donor.directory is None or not files:
        yield Problem("has no tokenizer files, so the merged model gets none.", donor.place, severity="note")
    else:
        yield from check_beside(donor.donor.directory, files, LIMIT)


@hookimpl
def write_sidecars(plan: MergePlan, checkpoints: Sequence[Checkpoint], options: Options) -> Mapping[str, bytes]:
    """The tokenizer, processor and chat template files of the donor."""
    directory = checkpoints[plan.donor].donor.directory
    if directory is None or not options.preserve_tokenizer:
        return {}
    contents = {name: read_beside(directory, name, LIMIT) for name in _files(directory)}
    return {name: content for name, content in contents.items() if content is not None}


def _files(directory: Path | None) -> list[str]:
    if directory is None:
        return []
    names = [
        name for name in list_directory(directory) if any(fnmatchcase(name, pattern) for pattern in TOKENIZER_FILES)
    ]
    templates = directory / TEMPLATES_FOLDER
    if os.path.isdir(templates) and not os.path.islink(templates):
        names += [f"{TEMPLATES_FOLDER}/{name}" for name in list_directory(templates) if name.endswith(".jinja")]
    return [name for name in names if not name.lower().endswith(CODE) and is_plain_path(name)]
