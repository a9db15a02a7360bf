"""Files beside a published model that are written after it: its report of a validation, and what plugins make of that."""

import json
import os
from pathlib import Path

from modelmerger.hooks.validation import ValidationHooks
from modelmerger.output.manifest import FILE, REPORT, encoded, read_manifest, unfinished
from modelmerger.output.publishing import sync_file
from modelmerger.output.staging import output_errors
from modelmerger.values.errors import OutputError, Problem
from modelmerger.values.findings import ValidationReport


def write_companions(directory: Path, report: ValidationReport, hooks: ValidationHooks) -> None:
    """`validation.json`, and the companions that plugins write, into a directory that a merge published.

    Each is written beside and renamed over, so that it is old or new at every moment. All are made before the first is written. A
    name that is new among the companions is put into the manifest first, so that the directory verifies at every moment.
    """
    manifest = read_manifest(directory)
    documents = {REPORT: (json.dumps(report.as_dict(), ensure_ascii=False, indent=1) + "\n").encode()}
    documents |= hooks.write_companions(directory, manifest, report, {REPORT: "the report", FILE: "the manifest"})
    companions = sorted({*manifest["companions"], *documents})
    with output_errors(directory):
        if companions != sorted(manifest["companions"]):
            _write_over(directory, FILE, encoded({**manifest, "companions": companions}))
        for name, content in documents.items():
            _write_over(directory, name, content)
        sync_file(directory)


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
