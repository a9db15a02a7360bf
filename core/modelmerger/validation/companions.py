"""Files that are written beside a published model later: the report of a validation, and what plugins make of it."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from modelmerger.hooks.validation import ValidationHooks
from modelmerger.output.entries import create_file, sync_file
from modelmerger.output.manifest import FILE, REPORT, encoded, read_manifest, records_paths, unfinished
from modelmerger.output.recorded import Recording
from modelmerger.output.system_errors import output_errors
from modelmerger.values.errors import OutputError, Problem
from modelmerger.values.findings import ValidationReport


def write_companions(directory: Path, report: ValidationReport, hooks: ValidationHooks) -> None:
    """`validation.json`, and the companions that plugins write, into a directory that a merge published.

    All are made before the first is written. Each is written beside and renamed over, so that it is old or new at every
    moment. They name no local path, unless the manifest does. A name that the manifest does not know as a companion yet
    is added to it first. Raises `PluginError` for a name that a plugin may not have, and `OutputError` where something
    else stands under a name.
    """
    manifest = read_manifest(directory)
    report = Recording.of([], as_given=records_paths(manifest)).report(report)
    documents = {REPORT: (json.dumps(report.as_dict(), ensure_ascii=False, indent=1) + "\n").encode()}
    taken = {REPORT: "the report", FILE: "the manifest"} | dict.fromkeys(manifest["files"], "the merge")
    documents |= hooks.write_companions(directory, manifest, report, taken)
    added = [name for name in documents if name not in manifest["companions"]]
    _refuse_taken(directory, documents, added)
    with output_errors(directory):
        if added:
            _write_over(directory, FILE, encoded({**manifest, "companions": [*manifest["companions"], *added]}))
        for name, content in documents.items():
            _write_over(directory, name, content)
        sync_file(directory)


def _refuse_taken(directory: Path, names: Iterable[str], added: Iterable[str]) -> None:
    for name in names:
        if (directory / name).is_dir():
            raise OutputError(
                Problem("is a directory where a file is to be written. Remove it.", str(directory / name))
            )
    for name in added:
        if os.path.lexists(directory / name):
            raise OutputError(
                Problem("is to be written, and no validation made it. Move it away.", str(directory / name))
            )


def _write_over(directory: Path, name: str, content: bytes) -> None:
    """No link is followed: not what stands under the name, nor what stands under the name beside it."""
    beside = directory / unfinished(name)
    beside.unlink(missing_ok=True)
    descriptor = create_file(beside)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(directory / name)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
