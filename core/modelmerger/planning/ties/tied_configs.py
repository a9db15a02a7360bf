"""What a config says of ties."""

from collections.abc import Iterable, Mapping
from typing import Any

_KEY = "tie_word_embeddings"


def says_tied(config: Mapping[str, Any] | None) -> bool | None:
    """Whether the embedding and the LM head are one matrix; None where the config says nothing and the class decides.

    At any level: models of several kinds of input say it of their text model, or of the whole.
    """
    said = [level[_KEY] for level in _levels(config or {}) if isinstance(level.get(_KEY), bool)]
    return any(said) if said else None


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the same model with matrices of their own, at the top and wherever else it says something else."""
    levels = {key: untied(level) if _says(level) else level for key, level in config.items()}
    return {**levels, _KEY: False}


def _says(level: Any) -> bool:
    return isinstance(level, Mapping) and says_tied(level) is not None


def _levels(config: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    yield config
    for level in config.values():
        if isinstance(level, Mapping):
            yield from _levels(level)
