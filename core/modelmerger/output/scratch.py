"""A folder for what a merged model needs while it is there, and no longer."""

import contextlib
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any, Self

from modelmerger.output.system_errors import output_errors
from modelmerger.values.model_reference import user_path


class Scratch:
    """A new folder in `parent` (made if need be), or where temporary files go.

    Removed at the end of the context, unless `goes_with` was called and something is in it: then with that object.
    """

    def __init__(self, parent: str | None) -> None:
        self._parent = Path(os.path.abspath(user_path(parent))) if parent is not None else None

    def __enter__(self) -> Self:
        self._made = self._parent is not None and not self._parent.exists()
        self._kept = False
        with output_errors(self._parent or Path(tempfile.gettempdir())):
            if self._parent is not None:
                self._parent.mkdir(exist_ok=True)
            self.path = Path(tempfile.mkdtemp(prefix="modelmerger-", dir=self._parent))
            """Where it is."""
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            _remove(self.path, self._made)

    def goes_with(self, owner: Any) -> None:
        """What is in the folder lives as long as `owner`."""
        if any(path.is_file() for path in self.path.rglob("*")):
            weakref.finalize(owner, _remove, self.path, self._made)
            self._kept = True


def _remove(path: Path, with_parent: bool) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if with_parent:
        with contextlib.suppress(OSError):  # others may have put something there
            path.parent.rmdir()
