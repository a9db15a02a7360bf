"""Recipes as texts, and what becomes of them."""

from typing import Any

import pytest
from modelmerger import MergeError
from modelmerger_plugins.mergekit_recipes import ReadOptions, read_config


def read(text: str, *, intent: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The config, and what is said, each as `warning: place: sentence` without the name of the file."""
    found = read_config(text, "r.yml", ReadOptions(intent=intent))
    assert found is not None
    notes = [
        f"{note.severity}: {note.where.removeprefix('r.yml').removeprefix(': ')}: {note.message}"
        for note in found.notes
    ]
    assert all(len(str(note)) <= 291 for note in found.notes)
    assert not any(str(note).endswith("…") for note in found.notes)
    return dict(found.config), notes


def refused(text: str, *, intent: bool = False) -> tuple[int, list[str]]:
    """The exit status, and what is wrong, each as `place: sentence`."""
    with pytest.raises(MergeError) as raised:
        read(text, intent=intent)
    lines = [str(problem).removeprefix("r.yml").removeprefix(": ") for problem in raised.value.problems]
    assert not any(line.endswith("…") for line in lines)
    return raised.value.exit_status, lines


def warnings(notes: list[str]) -> list[str]:
    return [note.removeprefix("warning: ") for note in notes if note.startswith("warning: ")]
