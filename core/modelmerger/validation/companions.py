"""Files that are written beside a published model later: the report of a validation, and what plugins make of it."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from modelmerger.hooks.validation import ValidationHooks
from modelmerger.output.entries import create_file, sync_file, write_all
from modelmerger.output.manifest import FILE, REPORT, encoded, read_manifest, records_paths, unfinished
from modelmerger.output.recorded import Recording
from modelmerger.output.system_errors import output_errors
from modelmerger.values.errors import OutputError, PluginError, Problem
from modelmerger.values.findings import ValidationReport

log = logging.getLogger("modelmerger")


def write_companions(directory: Path, report: ValidationReport, hooks: ValidationHooks) -> None:
    """`validation.json`, and the companions that plugins write, into a directory that a merge published.

    All are made before the first is written. Each is written beside and renamed over, so that it is old or new at every
    moment. They name no local path, unless the manifest does. A name that the manifest does not know as a companion yet
    is added to it first. Those of a plugin that fails, or wants a name that it may not have, are left out with a
    warning. Raises `OutputError` where something else stands under a name.
    """
    manifest = read_manifest(directory)
    report = Recording.of([], as_given=records_paths(manifest)).report(report)
    documents = _documents(directory, manifest, report, hooks, _warn)
    added = [name for name in documents if name not in manifest["companions"]]
    with output_errors(directory):
        if added:
            _write_over(directory, FILE, encoded({**manifest, "companions": [*manifest["companions"], *added]}))
        for name, content in documents.items():
            _write_over(directory, name, content)
        sync_file(directory)


def check_companions(directory: Path, hooks: ValidationHooks) -> None:
    """Raises what `write_companions` would raise for any report, before anything is measured. Writes nothing."""
    nothing = ValidationReport(directory=str(directory), validators={}, settings={}, findings=[], samples=[])
    # plugins of others may not expect a report without findings, so what they raise here is no matter
    _documents(directory, read_manifest(directory), nothing, hooks, lambda _: None)


def _warn(error: PluginError) -> None:
    for problem in error.problems:
        log.warning("%s The validation is saved without what it writes.", str(problem).rstrip(".") + ".")


def _documents(
    directory: Path,
    manifest: Mapping[str, Any],
    report: ValidationReport,
    hooks: ValidationHooks,
    without: Callable[[PluginError], None],
) -> dict[str, bytes]:
    documents = {REPORT: (json.dumps(report.as_dict(), ensure_ascii=False, indent=1) + "\n").encode()}
    taken = {REPORT: "the report", FILE: "the manifest"} | dict.fromkeys(manifest["files"], "the merge")
    documents |= hooks.write_companions(directory, manifest, report, taken, without)
    added = [name for name in documents if name not in manifest["companions"]]
    _refuse_taken(directory, documents, added)
    return documents


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
        try:
            write_all(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.replace(directory / name)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
