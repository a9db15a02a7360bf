"""The output directory of a trainer, and the checkpoints in it."""

import os
import re
from pathlib import Path

from attrs import frozen
from modelmerger import InputError, list_directory, read_beside, read_json, resolve_inside

CHECKPOINT = re.compile(r"checkpoint-(\d{1,18})", re.ASCII)
WEIGHTS = re.compile(r".*\.safetensors(\.index\.json)?|pytorch_model.*|adapter_config\.json", re.DOTALL)
STATE, STATE_LIMIT = "trainer_state.json", 64 << 20


@frozen(eq=False, repr=False)
class Checkpoints:
    """What a directory holds of a training."""

    directory: Path
    """The directory."""
    names: tuple[str, ...]
    """Its checkpoints by their steps, the last one last."""
    has_weights: bool
    """Whether it has weights of its own."""

    def path(self, name: str) -> Path:
        """Where a checkpoint lies, as the directory has it. Raises `InputError` for a link that leads out of it."""
        resolve_inside(self.directory / name, self.directory)
        return self.directory / name


def checkpoints_of(directory: Path) -> Checkpoints:
    """What lies in a directory; no checkpoints where it is none."""
    names = list_directory(directory) if os.path.isdir(directory) else []
    found = {int(match[1]): name for name in names if (match := CHECKPOINT.fullmatch(name))}
    return Checkpoints(directory, tuple(found[step] for step in sorted(found)), any(map(WEIGHTS.fullmatch, names)))


def best_of(checkpoint: Path) -> str:
    """The name of the checkpoint that the trainer says is the best; empty if it does not say."""
    try:
        state = read_json(read_beside(checkpoint, STATE, STATE_LIMIT) or b"{}", STATE)
        return Path(state["best_model_checkpoint"]).name
    except (InputError, TypeError, KeyError):
        return ""
