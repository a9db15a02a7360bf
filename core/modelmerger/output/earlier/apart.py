"""An output is apart from everything that is read, whether the config names it or not."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from modelmerger.inputs.one_place import Place, is_or_lies_in
from modelmerger.output.manifest import FILE, is_ours
from modelmerger.output.parent_folder import staging_path
from modelmerger.values.checkpoint import Checkpoint, models_behind
from modelmerger.values.errors import OutputError, Problem
from modelmerger.values.model_reference import Location, user_path
from modelmerger.values.settings import Settings

_STAGED = staging_path(Path("/x")).name.partition("x")[2]
_ELSEWHERE = "Its overwriting would take this output with it. Give another output path."
Inputs = Mapping[str, Sequence[str]]
"""Paths of everything that is read, by what messages call it."""


def inputs_of(settings: Settings, checkpoints: Iterable[Checkpoint], located: Mapping[str, Location]) -> Inputs:
    """What a merge reads: its models, their bases, what their names lead to, the texts of the validation, the config.

    checkpoints: the models, open. located: where everything that the user named was found.
    """
    found: dict[str, list[str]] = {}
    for checkpoint in _all(checkpoints):
        paths = found.setdefault(checkpoint.name, [])
        paths += [file.path for file in checkpoint.files]
        if checkpoint.donor.directory is not None:
            paths.append(str(checkpoint.donor.directory))
        if checkpoint.base is not None and _exists(str(checkpoint.base.location.directory)):
            paths.append(str(checkpoint.base.location.directory))
    for name, location in located.items():
        found[name] = [path for path in (str(user_path(name)), str(location.directory)) if _exists(path)]
    if settings.validation is not None and settings.validation.dataset is not None:
        found["validation.dataset"] = [str(user_path(settings.validation.dataset))]
    if settings.file:
        found["the config"] = [settings.file]
    return found


def _all(checkpoints: Iterable[Checkpoint]) -> Iterable[Checkpoint]:
    """The models, those that they are made of, and the bases of all these."""
    models = [*checkpoints]
    for checkpoint in [*models, *models_behind(models)]:
        yield checkpoint
        if checkpoint.base is not None:
            yield from _all([checkpoint.base.checkpoint])


def _exists(path: str) -> bool:
    return "\0" not in path and os.path.lexists(path)  # a Hub id is no path


def check_in_no_output(target: Path) -> None:
    """Raises `OutputError` where the output lies in what another merge wrote, or is writing, and may replace."""
    for folder in (found := Path(os.path.realpath(target.parent)), *found.parents):
        if os.path.lexists(folder / FILE) and is_ours(folder):
            raise OutputError(Problem(f"lies in {folder}, which a merge wrote. {_ELSEWHERE}", str(target)))
        if folder.name.startswith(".") and folder.name.endswith(_STAGED):
            raise OutputError(Problem(f"lies in {folder}, where another merge is at work. {_ELSEWHERE}", str(target)))


def check_apart(target: Path, inputs: Inputs) -> None:
    """Raises `OutputError` where the output equals, contains or lies in an input, whatever links are on the way."""
    outputs = [Place.of(target), Place.of(staging_path(target))]
    for name, given in inputs.items():
        for path in sorted({Path(os.path.realpath(path)) for path in given}):
            if any(place.touches(output) for place in [Place.of(path)] for output in outputs):
                message = f"is, contains or lies in the input '{name}' ({path}). Give another output path."
                raise OutputError(Problem(message, str(target)))


def check_scratch(folder: str | None, inputs: Inputs) -> None:
    """Raises `OutputError` where `offload_folder`, in which files are put for a while, is or lies in an input."""
    for name, given in inputs.items() if folder is not None else ():
        for path in sorted({path for path in given if os.path.isdir(path)}):
            if folder is not None and is_or_lies_in(user_path(folder), path):
                message = f"offload_folder is or lies in the input '{name}' ({path}). Give another folder."
                raise OutputError(Problem(message, folder))
