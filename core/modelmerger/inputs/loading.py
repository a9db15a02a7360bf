"""What a plugin opens models with: files that are regular, inside the model's directory, and unchanged."""

import os
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path

from attrs import field, frozen

from modelmerger.inputs.files import InputFiles
from modelmerger.inputs.first_bytes import FIRST, what_it_is
from modelmerger.inputs.regular_files import open_regular, open_small, read_small
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import InputError, Problem
from modelmerger.values.file_identity import FileIdentity, identify
from modelmerger.values.model_reference import Location, ModelReference
from modelmerger.values.settings import Settings

MOST_ENTRIES = 20_000
"""Of a directory that is listed: ten times as many as the largest model has files."""
_MARKUP = (".html", ".htm", ".md")
"""How files end that may be a page, and no error of a server."""


def as_given(reference: ModelReference) -> Location:
    """A model lies where its path says."""
    return Location(reference.local)


def _knows_no_model(reference: ModelReference, _: "LoadContext") -> Checkpoint:
    raise InputError(Problem("cannot be opened from here.", reference.path))


@frozen(eq=False, repr=False)
class LoadContext:
    """What a plugin opens models with."""

    files: InputFiles = field(factory=InputFiles)
    """Reads files by position; handed to `FileCheckpoint`."""
    settings: Settings | None = None
    """Of the merge; None where no merge is going on."""
    _open: Callable[[ModelReference, "LoadContext"], Checkpoint] = _knows_no_model
    _locate: Callable[[ModelReference], Location] = as_given
    trusted: bool = False
    """Whether what is opened was written by this process a moment ago, and may be read in any form."""
    _opened: dict[str, Checkpoint] = field(factory=dict, init=False, repr=False)
    _located: dict[str, Location] = field(factory=dict, init=False, repr=False)

    def locate(self, reference: ModelReference) -> Location:
        """Where a model that the user names lies on this disk; a path is located once, so that it is one state of the
        model.

        It may go to the network: never for a name that stands in a model's own files. Raises `InputError`.
        """
        if reference.path not in self._located:
            self._located[reference.path] = self._locate(reference)
        return self._located[reference.path]

    def located(self) -> Mapping[str, Location]:
        """Where models were found so far, by what names them."""
        return self._located

    def open_model(self, reference: ModelReference) -> Checkpoint:
        """Another model or file of weights, by whichever plugin knows it. Raises `InputError`.

        The same path is opened once.
        """
        if reference.path not in self._opened:
            self._opened[reference.path] = self._open(reference, self)
        return self._opened[reference.path]

    def open_file(self, path: Path | str, inside: Path | None = None) -> FileIdentity:
        """Checks a file and remembers its identity.

        inside: the model's directory, to be given wherever a part of the path comes from the model's own files; without
        it, the folder of the path. Neither a link nor `..` may lead out of it, except into the blobs of the same Hub
        cache. Raises `InputError`, also for what git, macOS or a server left in the place of a file.
        """
        real = resolve_inside(Path(path), inside or Path(path).parent)
        descriptor = open_regular(real)
        try:
            status, first_bytes = os.fstat(descriptor), os.pread(descriptor, FIRST, 0)
        except OSError as error:
            raise InputError(Problem(f"cannot be read: {error.strerror}.", str(path))) from error
        finally:
            os.close(descriptor)
        _check_first_bytes(Path(path), first_bytes)
        return identify(real, status)


def read_beside(directory: Path, name: str, limit: int = 64 << 20) -> bytes | None:
    """A small file of a model's directory; None where there is none.

    Raises `InputError` for what is no regular file, leads out by a link, or only stands in the place of a file.
    """
    path = directory / name
    if not os.path.lexists(path):
        return None
    content = read_small(resolve_inside(path, directory), limit)
    _check_first_bytes(path, content[:FIRST])
    return content


def identify_beside(directory: Path, name: str, limit: int) -> FileIdentity:
    """Which file of a model's directory this is now, for `write_sidecars` to have it copied.

    limit: bytes that it may have. Raises what `read_beside` raises, and `InputError` where there is none.
    """
    path = directory / name
    real = resolve_inside(path, directory)
    descriptor = open_small(real, limit)
    try:
        _check_first_bytes(path, os.pread(descriptor, FIRST, 0))
        return identify(real, os.fstat(descriptor))
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}.", str(path))) from error
    finally:
        os.close(descriptor)


def check_beside(directory: Path, names: Iterable[str], limit: int) -> list[Problem]:
    """What `read_beside` would raise for these files, found by their first bytes: for checks before a merge begins."""
    problems: list[Problem] = []
    for name in names:
        try:
            identify_beside(directory, name, limit)
        except InputError as error:
            problems += error.problems
    return problems


def _check_first_bytes(path: Path, first: bytes) -> None:
    if not path.name.lower().endswith(_MARKUP) and (what := what_it_is(first)):
        raise InputError(Problem(f"is {what}.", str(path)))


def list_directory(directory: Path) -> list[str]:
    """What a directory holds, sorted. Raises `InputError` where it cannot be listed, or holds more than any model."""
    try:
        with os.scandir(directory) as entries:
            found = [entry.name for entry in islice(entries, MOST_ENTRIES + 1)]
    except OSError as error:
        raise InputError(Problem(f"cannot be listed: {error.strerror}.", str(directory))) from error
    if len(found) > MOST_ENTRIES:
        message = f"holds more than {MOST_ENTRIES:,} files and folders, so it is no model's. Give a model's directory."
        raise InputError(Problem(message, str(directory)))
    return sorted(found)


def resolve_inside(path: Path, inside: Path) -> Path:
    """Where a path leads. A link is followed if it stays in the model's directory or leads to its Hub cache's blobs.

    Raises `InputError` for a path that leads out, by a link, by `..`, or as an absolute one.
    """
    real, directory, is_link = Path(os.path.realpath(path)), Path(os.path.realpath(inside)), os.path.islink(path)
    if real.is_relative_to(directory) or _in_blobs(real, directory):
        return real if is_link else path.absolute()
    leads = "is a link that leads" if is_link else "leads"
    raise InputError(Problem(f"{leads} out of the model's directory, to {real}. Copy the file instead.", str(path)))


def _in_blobs(real: Path, directory: Path) -> bool:
    """A Hub cache: models--org--name/snapshots/REVISION/file links to models--org--name/blobs/HASH."""
    for parent in directory.parents:
        if parent.name == "snapshots":
            return real.parent == parent.parent / "blobs"
    return False
