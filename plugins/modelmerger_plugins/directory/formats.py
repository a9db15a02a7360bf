"""The formats of weights that are read here."""

from collections.abc import Callable, Mapping

from attrs import frozen
from modelmerger import PICKLED_SUFFIXES, TensorEntry, read_header, read_pickled

TRAINING = ("optimizer", "scheduler", "scaler", "rng_state", "random_states", "training_args")
"""How the names of pickles begin that trainers leave beside the weights."""
APPLE_DOUBLE = "._"
"""How the names begin of files in which macOS keeps what belongs to others."""
Parse = Callable[[int, int], Mapping[str, TensorEntry]]
"""Reads the tensors of an open file: descriptor, size in bytes → tensors by name."""


@frozen(eq=False, repr=False)
class Format:
    """How weights are stored."""

    name: str
    """What messages call it."""
    single: str
    """The name of a single file of weights."""
    index: str
    """The name of the index of several files."""
    suffixes: tuple[str, ...]
    """How names of files may end."""
    read: Parse
    """Reads what a file holds."""

    def has(self, name: str) -> bool:
        """Whether a file of this name holds weights in this format."""
        return name.endswith(self.suffixes) and not name.startswith((*TRAINING, APPLE_DOUBLE))


SAFETENSORS = Format(
    "safetensors",
    "model.safetensors",
    "model.safetensors.index.json",
    (".safetensors",),
    lambda descriptor, size: read_header(descriptor, size).entries,
)
PICKLED = Format(
    "pickled",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    PICKLED_SUFFIXES,
    read_pickled,
)
FORMATS = (SAFETENSORS, PICKLED)
