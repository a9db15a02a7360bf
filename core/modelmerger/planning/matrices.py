"""The embedding and the LM head: whether they stay the donor's, and whether they are one matrix."""

from collections.abc import Iterable, Mapping
from typing import Any

from modelmerger.planning.tensor_names import EMBEDDINGS, HEADS, is_embedding, is_head
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import ConfigError, Problem
from modelmerger.values.options.core import CoreOptions


def kept_matrices(donor: Checkpoint, options: CoreOptions) -> tuple[set[str], list[Problem]]:
    """The names of the donor's tensors that are not merged, and a note for each option that finds none.

    The options are `merge_embeddings` and `merge_lm_head`. Raises `ConfigError` where the donor ties its LM head to the
    embedding and the options contradict each other.
    """
    tied = _is_tied(donor)
    if tied and options.merge_lm_head not in (None, options.merge_embeddings):
        message = (
            f"contradicts merge_embeddings: '{donor.name}' ties its LM head to the embedding, so they are one matrix. "
            "Give both options the same value, or leave this one out"
        )
        raise ConfigError(Problem(message, "options.merge_lm_head"))
    embeddings = [name for name in donor.tensors if is_embedding(name)]
    heads = [name for name in donor.tensors if is_head(name)]
    kept: set[str] = set()
    notes = []
    if not options.merge_embeddings:
        kept.update(embeddings, heads if tied else ())
        if not embeddings:
            notes.append(_ineffective("merge_embeddings", "an embedding", EMBEDDINGS))
    if options.merge_lm_head is False and not tied:
        kept.update(heads)
        if not heads:
            notes.append(_ineffective("merge_lm_head", "an LM head", HEADS))
    return kept, notes


def repeated_heads(donor: Checkpoint) -> dict[str, str]:
    """LM heads that the donor's file holds although they are tied to the embedding: head → embedding.

    They must stay equal to it.
    """
    embeddings = [name for name in donor.tensors if is_embedding(name)]
    if not embeddings or not _is_tied(donor):
        return {}
    return dict.fromkeys(filter(is_head, donor.tensors), embeddings[0])


def _is_tied(donor: Checkpoint) -> bool:
    """Whether the LM head is the embedding: it is left out of the file, or the config says that they are tied."""
    config = donor.donor.config or {}
    return any(map(is_head, donor.aliases)) or any(
        level.get("tie_word_embeddings") is True for level in _levels(config)
    )


def _levels(config: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """The config, and the config of its text model where it has several."""
    yield config
    if isinstance(text := config.get("text_config"), Mapping):
        yield text


def _ineffective(option: str, what: str, ends: Iterable[str]) -> Problem:
    message = f"has no effect: no tensor of the donor has the name of {what} ({', '.join(ends)})."
    return Problem(message, f"options.{option}", severity="note")
