"""A project under a new name: the one in `project`, with its name changed wherever it stands.

That is also `examples/strategy-plugin` of the repository, which is tested as it is.
"""

import importlib.util
import keyword
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from modelmerger import ConfigError, OutputError, shown

PROJECT = Path(__file__).parent / "project"
OLD_NAME = "agreeing-merge"
OLD_PACKAGE = "agreeing_merge"
_BUILT = ("__pycache__", "build", "dist")
_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_.][a-z0-9]+)*", re.IGNORECASE)


def write_project(name: str) -> str:
    """Writes the project to a folder of that name in the current directory; the name of its package.

    The folder appears once it is whole. Raises `ConfigError` for a name that cannot be one, and `OutputError` where the
    folder exists or cannot be written.
    """
    package = package_of(name)
    target = Path(name)
    if os.path.lexists(target):
        raise OutputError(f"{shown(name)} exists already. Choose another name, or remove it.")
    begun = Path(f".{name}.{os.getpid()}.tmp")
    try:
        for path in _files(PROJECT):
            place = begun / str(path).replace(OLD_PACKAGE, package)
            place.parent.mkdir(parents=True, exist_ok=True)
            text = (PROJECT / path).read_text(encoding="utf-8")
            place.write_text(text.replace(OLD_NAME, name).replace(OLD_PACKAGE, package), encoding="utf-8")
        begun.rename(target)
    except OSError as error:
        shutil.rmtree(begun, ignore_errors=True)
        raise OutputError(f"{shown(name)} cannot be written: {error.strerror}.") from error
    return package


def package_of(name: str) -> str:
    """The name of the package of a distribution. Raises `ConfigError`."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"'{shown(name)}' cannot be the name of a distribution and its package. Give one of letters and digits, "
            "which begins with a letter, and with single hyphens between words: merge-by-median."
        )
    package = re.sub(r"[-.]", "_", name).lower()
    if keyword.iskeyword(package) or package in sys.builtin_module_names:
        raise ConfigError(f"'{name}' is a word of Python, so no package can be called that. Choose another name.")
    if importlib.util.find_spec(package) is not None:
        raise ConfigError(f"a package '{package}' is installed already, and would be hidden. Choose another name.")
    return package


def _files(folder: Path) -> Iterator[Path]:
    """The files of the project, by their paths in it; what was built there is left out."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        built = any(part in _BUILT or part.startswith(".") or part.endswith(".egg-info") for part in inside.parts)
        if path.is_file() and not built:
            yield inside
