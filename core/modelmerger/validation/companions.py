"""Files beside a published model that are written after it: the report of a validation, and what plugins make of that."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from modelmerger.hooks.calls import Hooks, described
from modelmerger.output.manifest import FILE, encoded, is_plain, read_manifest, unfinished
from modelmerger.output.publishing import sync_file
from modelmerger.output.staging import output_errors
from modelmerger.values.errors import OutputError, PluginError, Problem
from modelmerger.values.findings import ValidationReport

REPORT = "validation.json"


def write_companions(directory: Path, report: ValidationReport, hooks: Hooks) -> None:
    """`validation.json`, and the companions that plugins write, into a directory that a merge published.

    All are made before the first is written. Each is written beside and renamed over, so that it is old or new at every moment.
    A name that the manifest does not know as a companion yet is added to it first. Raises `PluginError` for a name that a plugin
    may not have, and `OutputError` where something else stands under a name.
    """
    manifest = read_manifest(directory)
    documents = {REPORT: (json.dumps(report.as_dict(), ensure_ascii=False, indent=1) + "\n").encode()}
    documents |= _of_plugins(directory, manifest, report, hooks)
    added = [name for name in documents if name not in manifest["companions"]]
    _refuse_taken(directory, documents, added)
    with output_errors(directory):
        if added:
            _write_over(directory, FILE, encoded({**manifest, "companions": [*manifest["companions"], *added]}))
        for name, content in documents.items():
            _write_over(directory, name, content)
        sync_file(directory)


def _of_plugins(
    directory: Path, manifest: Mapping[str, Any], report: ValidationReport, hooks: Hooks
) -> Mapping[str, bytes]:
    documents: dict[str, bytes] = {}
    taken = {REPORT: "the report", FILE: "the manifest"} | dict.fromkeys(manifest["files"], "the merge")
    for provider, written in hooks.write_companions(directory, manifest, report):
        for name, content in written.items():
            if not is_plain(name) or "/" in name or not isinstance(content, bytes):
                raise PluginError(
                    f"{described(provider)} wants to write {name!r}, which is no plain file name with bytes."
                )
            if name in taken:
                raise PluginError(f"{name} is written twice: by {taken[name]} and by {described(provider)}.")
            documents[name], taken[name] = content, described(provider)
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
