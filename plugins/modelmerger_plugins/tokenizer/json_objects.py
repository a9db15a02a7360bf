"""JSON objects beside the weights, as far as a model has them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelmerger import Checkpoint, InputError, read_beside, read_json

GENERATION = "generation_config.json"
LIMIT = 64 << 20


def object_in(directory: Path, name: str) -> Mapping[str, Any]:
    """A JSON object of a directory; empty for what is none: where it is taken, it is refused elsewhere."""
    try:
        content = read_beside(directory, name, LIMIT)
        value = {} if content is None else read_json(content, name, unique=False, infinite=())
    except InputError:
        return {}
    return value if isinstance(value, Mapping) else {}


def own_generation(checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    """The generation config of a model, or an adapter's own; None where it has none."""
    if checkpoint.donor.generation is None and checkpoint.donor.directory is not None:
        return object_in(checkpoint.donor.directory, GENERATION) or None
    return checkpoint.donor.generation
