"""Directories that hold an adapter and a whole model, of which one is taken."""

import os
from collections.abc import Iterable, Iterator

from modelmerger import Checkpoint, Problem, list_directory

from modelmerger_plugins.adapter_names import ADAPTER_CONFIG
from modelmerger_plugins.directory.formats import FORMATS


def beside_adapters(checkpoints: Iterable[Checkpoint]) -> Iterator[Problem]:
    """A note of each model that is an adapter with its base, though its directory has the weights of a model too."""
    whole = [name for form in FORMATS for name in (form.single, form.index)]
    directories = [model.donor.directory for model in checkpoints if model.base is not None]
    for directory in dict.fromkeys(directory for directory in directories if directory is not None):
        present = list_directory(directory) if os.path.isdir(directory) else []
        unread = next((name for name in whole if name in present), None)
        if unread is not None and ADAPTER_CONFIG in present:
            message = (
                f"has an adapter and a whole model. The adapter with its base is taken, and {unread} is not read. "
                "If the model is meant, move it to a directory of its own."
            )
            yield Problem(message, str(directory), severity="note")
