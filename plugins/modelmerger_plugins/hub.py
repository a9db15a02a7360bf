"""Models by Hub id, `org/name` or `org/name@revision`: data files of one commit, downloaded into the Hub's cache."""

import contextlib
import difflib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any

from attrs import frozen
from modelmerger import (
    EMBEDDER_FILES,
    PICKLED_SUFFIXES,
    PROCESSOR_FILES,
    TEMPLATES_FOLDER,
    TOKENIZER_FILES,
    InputError,
    Location,
    ModelReference,
    OutputError,
    Problem,
    hookimpl,
    list_directory,
    shown,
)

HUB_ID = r"(?a:(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>(?!.*\.\.)[\w./+-]+))?)"
MAIN = "main"
MODEL, ANY_WEIGHTS = "model*.safetensors", "*.safetensors"
DATA = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "model.safetensors.index.json",
    *TOKENIZER_FILES,
    *PROCESSOR_FILES,
    *EMBEDDER_FILES,
    "README.md",
    "[Ll][Ii][Cc][Ee][Nn][CcSs][Ee]*",
    "[Nn][Oo][Tt][Ii][Cc][Ee]*",
    "[Uu][Ss][Ee]_[Pp][Oo][Ll][Ii][Cc][Yy]*",
    "[Cc][Oo][Pp][Yy][Ii][Nn][Gg]*",
)
IN_FOLDERS = (
    f"{TEMPLATES_FOLDER}/*.jinja",
    "[0-9]_*/*.json",
    "[0-9]_*/*.txt",
    "[0-9]_*/model.safetensors",
    "licenses/*/*",
)
"""What is taken of folders: further chat templates, modules of embedding models, and licences of a merge's sources."""
CODE = ("*.py", "*.pyc", "*.so", "*.sh", *(f"*{ending}" for ending in PICKLED_SUFFIXES))
LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


@hookimpl(trylast=True)
def locate_model(reference: ModelReference) -> Location | None:
    """The snapshot of a Hub id, downloaded first. What exists on the disk, or looks like a file, is not a Hub id."""
    path = reference.path
    if os.path.lexists(path) or path.endswith((".safetensors", *PICKLED_SUFFIXES)):
        return None
    match = re.fullmatch(HUB_ID, path)
    if match is None:
        return None
    return _located(HubId(path, match["repository"], match["revision"] or MAIN))


@frozen(eq=False, repr=False)
class HubId:
    """A model on the Hub."""

    given: str
    """As the config has it."""
    repository: str
    """`org/name`."""
    revision: str
    """A branch, tag or commit."""


class UnreachableError(Exception):
    """The Hub did not answer, or cannot answer now. The text says why."""


def _located(model: HubId) -> Location:
    """The snapshot from the Hub, or from the cache if the Hub cannot be reached."""
    try:
        commit, names = _listed(model)
    except UnreachableError as error:
        return _cached(model, str(error))
    weights = _weights(model, names)
    try:
        _fetch(model, commit, [name for name in names if "/" not in name and fnmatchcase(name, weights)])
        snapshot = _snapshot(model, names, weights)
    except UnreachableError as error:
        message = (
            f"the download from the Hub broke off ({error}). "
            "Run the same command again: files that are complete are kept."
        )
        raise InputError(Problem(message, model.given)) from error
    return Location(snapshot, snapshot.name)


def _listed(model: HubId) -> tuple[str, list[str]]:
    """The commit of a revision, and the names of its files."""
    from huggingface_hub import HfApi

    with _answers(model):
        found = HfApi(library_name="modelmerger").model_info(model.repository, revision=model.revision)
        return found.sha or model.revision, [file.rfilename for file in found.siblings or ()]


def _fetch(model: HubId, commit: str, names: Sequence[str]) -> None:
    """Downloads large files into the cache, in the main thread, so that a signal stops it at once."""
    from huggingface_hub import hf_hub_download

    with _answers(model):
        for name in names:
            hf_hub_download(model.repository, name, revision=commit, library_name="modelmerger")


def _snapshot(model: HubId, names: Sequence[str] = (), weights: str = MODEL, *, cached: bool = False) -> Path:
    """The folder in the cache that is named after the commit. Downloads what it lacks, unless `cached` is true.

    names: of the files on the Hub.
    """
    from huggingface_hub import snapshot_download

    with _answers(model):
        wanted = None if cached else [escape(name) for name in names if _is_wanted(name, weights)]
        found = snapshot_download(
            model.repository,
            revision=model.revision,
            allow_patterns=wanted,
            local_files_only=cached,
            library_name="modelmerger",
            tqdm_class=_no_bars(),
        )
        return Path(found)


def _is_wanted(name: str, weights: str) -> bool:
    patterns = IN_FOLDERS if "/" in name else [*DATA, weights]
    fits = any(fnmatchcase(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns)
    return fits and not any(fnmatchcase(name, pattern) for pattern in CODE)


def _no_bars() -> Any:
    """A progress bar that is not shown, for small files; huggingface_hub shows bars of large ones on a terminal."""
    from huggingface_hub.utils.tqdm import tqdm

    class NoBars(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            # tqdm has no types
            super().__init__(*arguments, **options | {"disable": True})  # type: ignore[no-untyped-call]

    return NoBars


def _weights(model: HubId, names: Sequence[str]) -> str:
    """The pattern of the weights. If some files have the names that transformers gives, others are copies of them."""
    if any(fnmatchcase(name, MODEL) for name in names):
        return MODEL
    if any(name.endswith(".safetensors") and "/" not in name for name in names):
        return ANY_WEIGHTS
    pickled = next((f" (but {shown(name)})" for name in names if name.endswith(PICKLED_SUFFIXES)), "")
    message = (
        f"has no safetensors weights on the Hub{pickled}. "
        "Give a revision or repository that has them, or convert the model and give its directory."
    )
    raise InputError(Problem(message, model.given))


def _cached(model: HubId, reason: str) -> Location:
    """The snapshot that an earlier download left."""
    try:
        snapshot = _snapshot(model, cached=True)
        if not any(name.endswith(".safetensors") for name in list_directory(snapshot)):
            raise UnreachableError(reason)
    except UnreachableError as error:
        message = (
            f"is not on this disk, nor whole in the Hub's cache, and the Hub cannot be reached ({reason}). "
            f"Run it once with a connection, or give a directory{_on_disk(model, ', such as ./{}')}."
        )
        raise InputError(Problem(message, model.given)) from error
    message = f"the Hub cannot be reached ({reason}), so {model.revision} is what the cache has, {snapshot.name}."
    return Location(snapshot, snapshot.name, (Problem(message, model.given, severity="note"),))


@contextlib.contextmanager
def _answers(model: HubId) -> Iterator[None]:
    """Translates errors: `InputError` for answers of the Hub, `OutputError` for the cache, else `UnreachableError`."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it would report every attempt; the outcome is reported here, once
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (408, 429) or status >= 500:
            raise UnreachableError(f"it answers with status {status}") from error
        raise InputError(Problem(_refusal(model, error), model.given)) from error
    except HFValidationError as error:
        message = "is neither a path that exists nor a name that a repository on the Hub can have. Check the spelling."
        raise InputError(Problem(message, model.given)) from error
    except OfflineModeIsEnabled as error:
        raise UnreachableError("HF_HUB_OFFLINE is set") from error
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError):
            raise UnreachableError(_reason(error)) from error
        message = f"{error.strerror}. The Hub's cache is there: free some space, or set HF_HOME to another place."
        raise OutputError(Problem(message, str(error.filename or model.given))) from error
    except Exception as error:  # what the HTTP library raises depends on the version of huggingface_hub
        raise UnreachableError(_reason(error)) from error
    finally:
        logger.setLevel(level)


def _refusal(model: HubId, error: Exception) -> str:
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, RevisionNotFoundError):
        return (
            f"has no revision '{model.revision}' on the Hub. Check what stands behind the @; without it, main is taken."
        )
    if isinstance(error, GatedRepoError):
        return f"is gated on the Hub. Ask for access on the page of {model.repository} there, then {LOG_IN}."
    if isinstance(error, RepositoryNotFoundError):
        return (
            "is neither a path that exists nor a repository that the Hub shows you. "
            f"Check the spelling{_on_disk(model, ' (there is ./{} here)')}; if it is private, {LOG_IN}."
        )
    if isinstance(error, DisabledRepoError):
        return "was disabled on the Hub. Give another model."
    return f"is refused by the Hub ({_reason(error)}). If it is private or gated, {LOG_IN}."


def _on_disk(model: HubId, said: str) -> str:
    """What is said of a path on this disk that is nearly the id, with the path in it; else an empty string."""
    folder, name = model.repository.split("/")
    try:
        near = difflib.get_close_matches(name, os.listdir(folder), n=1)
    except OSError:
        return ""
    return said.format(shown(f"{folder}/{near[0]}", 60)) if near else ""


def _reason(error: Exception) -> str:
    """The first line of what an exception says, or its name."""
    lines = str(error).strip().splitlines()
    return shown(lines[0].rstrip(".") if lines else type(error).__name__, 80)
