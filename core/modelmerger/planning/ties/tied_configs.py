"""What a config says of ties."""

from collections.abc import Iterable, Mapping
from typing import Any

_KEY = "tie_word_embeddings"
_MEANS_MORE = frozenset({"t5", "mt5", "umt5", "longt5", "switch_transformers", "pop2piano", "udop"})
"""Model types whose classes scale the output of the decoder where the key is true, or ignore it. They tie matrices of
equal bits alone."""


def says_tied(config: Mapping[str, Any] | None) -> bool | None:
    """Whether the embedding and the LM head are one matrix; None where the config says nothing and the class decides.

    At any level: models of several kinds of input say it of their text model, or of the whole.
    """
    said = [level[_KEY] for level in _levels(config or {}) if isinstance(level.get(_KEY), bool)]
    return any(said) if said else None


def untied(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the same model with matrices of their own, at the top and wherever else it says something else.

    As it is for those types whose config cannot say it: transformers sees it from the matrices.
    """
    if config.get("model_type") in _MEANS_MORE:
        return dict(config)
    levels = {key: untied(level) if _says(level) else level for key, level in config.items()}
    return {**levels, _KEY: False}


def _says(level: Any) -> bool:
    return isinstance(level, Mapping) and says_tied(level) is not None


def _levels(config: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    yield config
    for level in config.values():
        if isinstance(level, Mapping):
            yield from _levels(level)
