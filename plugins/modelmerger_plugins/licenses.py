"""The licence files of every source, under `licenses/NAME/`."""

import os
import re
from collections.abc import Mapping, Sequence

from modelmerger import Checkpoint, hookimpl, read_beside

LICENCE = re.compile(r"(LICEN[CS]E|NOTICE|USE_POLICY|COPYING)([._-].{0,80})?", re.IGNORECASE)
LIMIT = 1 << 20


@hookimpl
def write_sidecars(checkpoints: Sequence[Checkpoint]) -> Mapping[str, bytes]:
    """LICENSE, NOTICE, USE_POLICY and COPYING files, each source's in a folder of its own."""
    files: dict[str, bytes] = {}
    for checkpoint in checkpoints:
        directory = checkpoint.donor.directory
        if directory is None:
            continue
        folder = re.sub(r"[^\w.-]+|^\.+", "_", checkpoint.name)
        for name in sorted(os.listdir(directory)):
            if LICENCE.fullmatch(name) and not name.endswith(".py") and not (directory / name).is_dir():
                content = read_beside(directory, name, LIMIT)
                if content is not None:
                    files[f"licenses/{folder}/{name}"] = content
    return files
