"""Entries of `models`, of weights and options that are given beside the models."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelmerger.values.errors import Problem


def count_problems(
    count: int, weights: Sequence[Any] | None, model_options: Sequence[Mapping[str, Any]] | None
) -> list[Problem]:
    """What is wrong with how many there are. count: of the models."""
    return [
        Problem(f"must be one a model: {len(given)} given for {count} models", key)
        for key, given in (("weights", weights), ("model_options", model_options))
        if given is not None and len(given) != count
    ]


def told_entries(
    named: Iterable[tuple[str, Any]],
    weights: Sequence[Any] | None,
    model_options: Sequence[Mapping[str, Any]] | None,
) -> list[dict[str, Any]]:
    """The entries. named: the name of each model, and its path or the model itself."""
    entries: list[dict[str, Any]] = [{"path": path, "name": name} for name, path in named]
    for entry, weight in zip(entries, weights or (), strict=False):
        entry["weight"] = weight
    for entry, told in zip(entries, model_options or (), strict=False):
        entry.update(told)
    return entries
