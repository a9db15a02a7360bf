"""What the name of a tensor tells, by common practice: its layer, and whether it is the embedding or the LM head."""

import re
from collections.abc import Hashable, Mapping

EMBEDDINGS = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "word_embedding.weight",
    "token_embedding.weight",
    "shared.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
    "embeddings.weight",
)
"""How names of the embedding of tokens end."""
HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
"""How names of the LM head end."""
_EMBEDDINGS, _HEADS = (tuple(f".{end}" for end in ends) for ends in (EMBEDDINGS, HEADS))
_LAYER = re.compile(r"(?:^|\.)([0-9]{1,9})(?=\.|\Z)")


def layer_of(name: str) -> tuple[str, int] | None:
    """The prefix of the layers and the number of this one: `model.layers.3.mlp.experts.7.w1` → ("model.layers", 3)."""
    found = _LAYER.search(name)
    return (name[: found.start()], int(found[1])) if found else None


def is_embedding(name: str) -> bool:
    """Whether this is an embedding of tokens."""
    return f".{name}".endswith(_EMBEDDINGS)


def is_head(name: str) -> bool:
    """Whether this is an LM head; no tensor within a layer is one."""
    return f".{name}".endswith(_HEADS) and layer_of(name) is None


def tied_heads(storages: Mapping[str, Hashable]) -> dict[str, str]:
    """LM heads that are stored where an embedding is stored: head → embedding.

    storages: what tells where each tensor is stored, by its name; equal for tensors that are one.
    """
    embeddings = {storage: name for name, storage in storages.items() if is_embedding(name)}
    return {name: embeddings[storage] for name, storage in storages.items() if is_head(name) and storage in embeddings}


def precedes_layers(name: str) -> bool:
    """Whether a tensor outside the layers stands before them, as embeddings of all kinds and their norms do."""
    words = re.split(r"[._]", name)
    embeds = any(word.startswith("emb") or word in ("wte", "wpe", "shared") for word in words)
    return embeds and not is_head(name)
