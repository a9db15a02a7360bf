"""A merge with what its validation found, read from the files beside the model."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen
from modelmerger import Finding, InputError, Problem, ValidationReport, read_json

REPORT, MANIFEST = "validation.json", "modelmerger.json"
ASKED = "prompts asked"
"""What is added to the settings of a validation: the prompts, each with its label."""


@frozen
class Validated:
    """A merge that was validated."""

    name: str
    """By which it is told from the others: the last part of its path, or the whole path."""
    directory: str
    """As it was given."""
    strategy: str
    """Of its config; empty where there is no manifest."""
    sources: tuple[tuple[str, str], ...]
    """Of its manifest: the name of each model, and its files with their sizes and digests as a text."""
    report: ValidationReport
    """With the findings of the merged model alone, under this name, and without answers."""


def read_validated(directory: str, name: str) -> Validated:
    """The merge in a directory. Raises `InputError` where it was not validated, or its files are damaged."""
    report = _document(directory, REPORT)
    if report is None:
        message = f"has no {REPORT}. Validate the model with 'modelmerger validate' and the config of its merge"
        raise InputError(Problem(message, directory))
    manifest = _document(directory, MANIFEST) or {}
    place = f"{directory}/{REPORT}"
    try:
        found = [_finding(one) for one in report["findings"]]
        own = [finding for finding in found if finding.model == found[0].model]
        asked = [(one["prompt"], one["label"]) for one in report["samples"] if one["model"] == found[0].model]
        validation = ValidationReport(
            directory=directory,
            validators=dict(report["validators"]),
            settings=dict(report["settings"]) | {ASKED: asked},
            findings=[attrs.evolve(finding, model=name) for finding in own],
            samples=[],
        )
        strategy = manifest.get("config", {}).get("strategy", "")
        sources = tuple((str(s["name"]), str(s.get("files"))) for s in manifest.get("sources", ()))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = f"does not say what a validation writes there ({type(error).__name__}: {error})"
        raise InputError(Problem(f"{reason}. Validate the model again", place)) from error
    return Validated(name, directory, str(strategy), sources, validation)


def names_of(directories: list[str]) -> list[str]:
    """A name for each: the last part of the path where that is unique."""
    short = [os.path.basename(os.path.abspath(directory)) for directory in directories]
    return [one if short.count(one) == 1 else path for one, path in zip(short, directories, strict=True)]


def _document(directory: str, name: str) -> dict[str, Any] | None:
    """A JSON object in a directory; None where there is no such file."""
    path = Path(directory) / name
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if os.path.isdir(directory):
            return None
        raise InputError(Problem("is no directory. Name directories that merges wrote", directory)) from None
    except OSError as error:
        raise InputError(Problem(f"cannot be read ({error.strerror})", str(path))) from error
    found = read_json(content, str(path))
    if not isinstance(found, dict):
        raise InputError(Problem("is no JSON object. Restore the file, or validate the model again", str(path)))
    return found


def _finding(data: Mapping[str, Any]) -> Finding:
    """Raises `KeyError`, `TypeError` or `ValueError` for what is no finding."""
    value = data["value"]
    if value is not None and (isinstance(value, bool) or not math.isfinite(value)):
        raise ValueError(f"{value} is no finite number")
    texts = {key: data[key] for key in ("metric", "evidence", "unit", "label", "model")}
    if not all(isinstance(text, str) for text in texts.values()) or data["better"] not in ("lower", "higher", None):
        raise ValueError("a finding has something else for a text")
    return Finding(**texts, value=value, better=data["better"])
