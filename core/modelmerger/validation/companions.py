"""Files beside a published model that are written after it: its report of a validation, and what plugins make of that."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from modelmerger.config.models_in_memory import described
from modelmerger.hooks.assembly import Hooks
from modelmerger.output.manifest import COMPANIONS, read_manifest, unfinished
from modelmerger.output.publishing import sync_file
from modelmerger.output.staging import output_errors
from modelmerger.values.errors import OutputError, PluginError, Problem
from modelmerger.values.findings import ValidationReport

REPORT = "validation.json"


def write_companions(directory: Path, report: ValidationReport, hooks: Hooks) -> None:
    """`validation.json`, and the companions that plugins write, into a directory that a merge published.

    Each is written beside and renamed over, so that it is old or new at every moment. All are made before the first is written.
    """
    documents = {REPORT: (json.dumps(report.as_dict(), ensure_ascii=False, indent=1) + "\n").encode()}
    documents |= _of_plugins(directory, report, hooks)
    with output_errors(directory):
        for name, content in documents.items():
            _write_over(directory, name, content)
        sync_file(directory)


def _of_plugins(directory: Path, report: ValidationReport, hooks: Hooks) -> Mapping[str, bytes]:
    documents: dict[str, bytes] = {}
    taken = {REPORT: "the report"}
    for provider, written in hooks.write_companions(directory, read_manifest(directory), report):
        for name, content in written.items():
            if name not in COMPANIONS or not isinstance(content, bytes):
                known = ", ".join(COMPANIONS)
                raise PluginError(
                    f"{described(provider)} wants to write {name!r}, and companions are {known}, as bytes."
                )
            if name in taken:
                raise PluginError(f"{name} is written twice: by {taken[name]} and by {described(provider)}.")
            documents[name], taken[name] = content, described(provider)
    return documents


def _write_over(directory: Path, name: str, content: bytes) -> None:
    """No link is followed: not what stands under the name, nor what stands under the name beside it."""
    if (directory / name).is_dir():
        raise OutputError(Problem("is a directory where a file is to be written. Remove it.", str(directory / name)))
    beside = directory / unfinished(name)
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(directory / name)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
