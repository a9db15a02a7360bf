"""The files that go along: each held to what it is now, or made anew where it may not stay as it is."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelmerger import (
    TOKENIZER_FILES,
    FileIdentity,
    InputError,
    Problem,
    executable_keys,
    identify_beside,
    is_executable,
    read_beside,
    read_json,
)

from modelmerger_plugins.chat_templates import (
    CONFIG,
    DEFAULT,
    FILE,
    encoded,
    files_with,
    is_template,
    templates_in,
    templates_of,
)
from modelmerger_plugins.tokenizer.borrowed_template import with_template
from modelmerger_plugins.tokenizer.kinds import embedder_files, processor_files, tokenizer_files
from modelmerger_plugins.tokenizer.modules.listed import MODULES, home, joined_folders
from modelmerger_plugins.tokenizer.options import Options, Sources

if TYPE_CHECKING:
    from modelmerger_plugins.tokenizer.rows.matching import Matching

LIMIT = 256 << 20
"""Bytes of one file."""
LIMIT_IN_ALL, MOST_FILES = 1 << 30, 1_000
"""Bytes of all files that are copied, and how many there may be."""
READ_IN_FULL = 4 << 20
"""Bytes up to which a JSON document is read when it is checked; of a longer one, its beginning."""
OBJECTS = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"
"""Documents that must be objects, or the tokenizer does not load."""
UNREAD = object()
"""In place of what a long document holds."""
MEND, UNMARKED = "Mend it, or remove it.", "Save it as UTF-8 without one."
MARK = b"\xef\xbb\xbf"
"""The byte order mark."""
ADVICE = "Copy the .py files of the donor that it names into the output and put it back, if you trust them"
"""What to do about keys that name code."""


def names_to_copy(sources: Sources, options: Options, *, whole_model: bool) -> list[tuple[Path, str]]:
    """The files that go along, each with the directory that it is in."""
    found: list[tuple[Path | None, list[str]]] = []
    if options.preserve_tokenizer:
        found.append((sources.tokenizer.donor.directory, tokenizer_files(sources.tokenizer.donor.directory)))
        found.append((sources.donor.donor.directory, processor_files(sources.donor.donor.directory)))
    if whole_model:
        modules = home(sources.donor)
        found.append((modules, embedder_files(modules, joined_folders(sources.donor))))
    return [(directory, name) for directory, names in found if directory is not None for name in names]


def files_to_write(
    sources: Sources, options: Options, matching: "Matching | None", *, whole_model: bool
) -> dict[str, bytes | FileIdentity]:
    """Path in the output → the file that is copied, or what is made of it. Raises `InputError`.

    matching: how the models' rows are matched, so that the tokenizer's files may be others; None where they are not.
    """
    sources, _ = with_template(sources, matching)
    files: dict[str, bytes | FileIdentity] = {}
    for directory, name in names_to_copy(sources, options, whole_model=whole_model):
        files[name] = _without_code(directory, name) or identify_beside(directory, name, LIMIT)
    if matching is not None and matching.union is not None:
        files = {name: file for name, file in files.items() if _may_stay(name)}
    if matching is not None and matching.renamed and sources.tokenizer.donor.directory is not None:
        from modelmerger_plugins.tokenizer.renaming import renamed_files

        files |= renamed_files(files, matching.renamed, sources.tokenizer.donor.directory)
    if matching is not None and matching.union is not None and options.preserve_tokenizer:
        from modelmerger_plugins.tokenizer.union.files import union_files

        files |= union_files(matching.union, files.get(CONFIG), sources.tokenizer.donor.directory)
    if options.preserve_tokenizer and (sources.template is not sources.tokenizer or options.chat_template):
        kept = {name: file for name, file in files.items() if not is_template(name)}
        files = {**kept, **_templates(sources, kept.get(CONFIG), options.chat_template)}
    return files


def _may_stay(name: str) -> bool:
    """Whether a file beside the weights says nothing of the vocabulary that a union would contradict."""
    of_vocabulary = any(fnmatchcase(name, pattern) for pattern in TOKENIZER_FILES)
    return not of_vocabulary or name in (CONFIG, "special_tokens_map.json") or is_template(name)


def problems_with_files(sources: Sources, options: Options) -> Iterator[Problem]:
    """An error for each file that cannot go along, a warning for each that goes without what names code."""
    found = names_to_copy(sources, options, whole_model=True)
    total = 0
    for directory, name in found[:MOST_FILES]:
        try:
            total += identify_beside(directory, name, LIMIT).size
            yield from _in_document(directory, name)
        except InputError as error:
            yield from error.problems
    if len(found) > MOST_FILES or total > LIMIT_IN_ALL:
        message = (
            f"has {len(found):,} files beside the weights to copy, {total:,} bytes together; at most {MOST_FILES:,} "
            f"and {LIMIT_IN_ALL:,} are allowed. Remove what is not the model's."
        )
        yield Problem(message, str(found[0][0]))


def _in_document(directory: Path, name: str) -> Iterator[Problem]:
    """What is to be said of a JSON document: no loader takes one that is none, or an object of another kind."""
    if not name.endswith(".json"):
        return
    path = directory / name
    value = _read(directory, name)
    if _begins_with_mark(path):
        message = f"begins with a byte order mark, with which transformers does not load it. {UNMARKED}"
        yield Problem(message, str(path), severity="warning")
    if value is UNREAD:
        return
    if name in OBJECTS and not isinstance(value, Mapping):
        raise InputError(Problem(f"is not a JSON object. {MEND}", str(path)))
    if name == "tokenizer.json" and not isinstance(value.get("model"), Mapping):
        yield Problem(
            "has no 'model', and so no loader takes it. It is copied as it is.", str(path), severity="warning"
        )
    if name == MODULES:
        yield from _in_modules(value, path)
    elif _may_name_code(name) and (keys := sorted(executable_keys(value))):
        message = f"{', '.join(keys)} can make a loader run code, and is left out. {ADVICE}."
        yield Problem(message, str(path), severity="warning")


def _begins_with_mark(path: Path) -> bool:
    with path.open("rb") as opened:
        return opened.read(len(MARK)) == MARK


def _read(directory: Path, name: str) -> Any:
    """The content of a JSON document; `UNREAD` for a long one, whose beginning is looked at. Raises `InputError`."""
    path = directory / name
    if path.stat().st_size <= READ_IN_FULL:
        content = read_beside(directory, name, READ_IN_FULL) or b""
        try:
            return read_json(content, str(path), unique=False, infinite=())
        except InputError as error:
            raise InputError(Problem(f"{error.problems[0].message} {MEND}", str(path))) from error
    with path.open("rb") as opened:
        if not opened.read(64).removeprefix(MARK).lstrip().startswith((b"{", b"[")):
            raise InputError(Problem(f"is not sound JSON: it begins with neither {{ nor [. {MEND}", str(path)))
    return UNREAD


def _in_modules(modules: Any, path: Path) -> Iterator[Problem]:
    listed = modules if isinstance(modules, list) else []
    kinds = [str(module.get("type", "")) for module in listed if isinstance(module, Mapping)]
    own = [kind for kind in kinds if not kind.startswith("sentence_transformers.")]
    if own:
        message = (
            f"names modules that are code of the model ({', '.join(own)}), and no code is copied. "
            "Copy the donor's .py files into the output, if you trust them."
        )
        yield Problem(message, str(path), severity="warning")


def _without_code(directory: Path, name: str) -> bytes | None:
    """A document without the keys that name code; None where it has none of them, and so stays as it is."""
    if not _may_name_code(name):
        return None
    try:
        value = read_json(read_beside(directory, name, LIMIT) or b"{}", str(directory / name), unique=False)
    except InputError:
        return None
    return encoded(_cleaned(value)) if executable_keys(value) else None


def _may_name_code(name: str) -> bool:
    return name == CONFIG or name.endswith("processor_config.json")


def _cleaned(value: Any) -> Any:
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {key: _cleaned(item) for key, item in value.items() if not is_executable(key)}


def _templates(sources: Sources, config: bytes | FileIdentity | None, given: str | None) -> dict[str, bytes]:
    """The chat template that is given, or that of another model, where the tokenizer's own model keeps it."""
    theirs = templates_in(sources.template.donor.directory) if given is None else {FILE: {DEFAULT: given}}
    places = (templates_in(sources.tokenizer.donor.directory) if given is None else {}) or theirs
    directory = sources.tokenizer.donor.directory
    if isinstance(config, FileIdentity) and directory is not None:
        config = read_beside(directory, CONFIG, LIMIT)
    value = None if not isinstance(config, bytes) else read_json(config, CONFIG, unique=False)
    return files_with(templates_of(theirs), set(places), value)
