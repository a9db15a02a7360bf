"""Finds the newest checkpoint in the output directory of a trainer."""

import os
import re
from pathlib import Path

from modelmerger import (
    InputError,
    Location,
    ModelReference,
    Problem,
    amount,
    hookimpl,
    list_directory,
    read_beside,
    read_json,
    resolve_inside,
)

CHECKPOINT = re.compile(r"checkpoint-(\d{1,18})", re.ASCII)
WEIGHTS = re.compile(r".*\.safetensors(\.index\.json)?|pytorch_model.*|adapter_config\.json", re.DOTALL)
STATE, STATE_LIMIT = "trainer_state.json", 64 << 20


@hookimpl(trylast=True)
def locate_model(reference: ModelReference) -> Location | None:
    """The checkpoint-N of the highest N in a directory that has no weights of its own."""
    directory = reference.local
    if not os.path.isdir(directory):
        return None
    names = list_directory(directory)
    found = {int(match[1]): name for name in names if (match := CHECKPOINT.fullmatch(name))}
    if not found or any(map(WEIGHTS.fullmatch, names)):
        return None
    latest = found[max(found)]
    message = f"has no weights of its own; of its {amount(len(found), 'checkpoint')} the last, {latest}, is taken."
    best = _best(directory / latest)
    if best != latest and best in found.values():
        message += f" Its {STATE} says that {best} is the best: give {directory / best} to take that one."
    note = Problem(message, str(directory), severity="note")
    return Location(resolve_inside(directory / latest, directory), notes=(note,))


def _best(checkpoint: Path) -> str:
    """The name of the checkpoint that the trainer says is the best; empty if it does not say."""
    try:
        state = read_json(read_beside(checkpoint, STATE, STATE_LIMIT) or b"{}", STATE)
        return Path(state["best_model_checkpoint"]).name
    except (InputError, TypeError, KeyError):
        return ""
