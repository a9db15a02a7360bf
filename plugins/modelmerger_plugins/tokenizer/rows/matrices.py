"""Which tensors of a model have a row for each token."""

import re
from collections.abc import Mapping

from modelmerger import DTYPES, Checkpoint, TensorInfo, is_embedding, is_head, layer_of

NO_TEXT = re.compile(r"audio|image|vision|video|codec|codebook|speech|vq|depth")
"""Parts of a model whose vocabularies are not of texts."""
HEADS = (
    *("lm_head.bias", "cls.predictions.bias", "final_logits_bias", "embed_out.bias", "output.bias"),
    *("cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "lm_head.decoder.weight"),
    *("lm_head.decoder.bias", "vocab_projector.weight", "vocab_projector.bias"),
    *("predictions.decoder.weight", "predictions.decoder.bias", "predictions.bias", "output_layer.weight"),
    *("generator_lm_head.weight", "generator_lm_head.bias", "proj_out.weight", "head.weight"),
    "embed_tokens_per_layer.weight",
)
"""How names of further heads end, of what is added to the scores of tokens, and of further embeddings."""
POSITIONS = r"(^|[._])(pos|wpe|positions?|position_embeddings?)([._]|$)"
FROM = 1_000
"""Rows from which on it is no chance that a matrix has as many as the embedding."""
_HEADS = tuple(f".{end}" for end in HEADS)


def row_count(checkpoint: Checkpoint) -> int | None:
    """How many rows the embedding of tokens has; None where no tensor is one by its name, and has elements.

    Of several embeddings, the first that has as many rows as the config says of the vocabulary, else the first.
    """
    found = [
        info.shape[0]
        for name, info in checkpoint.tensors.items()
        if is_embedding(name) and len(info.shape) == 2 and info.elements and layer_of(name) is None and _is_float(info)
    ]
    said = set(_vocabulary_sizes(checkpoint.donor.config or {}))
    return next((rows for rows in found if rows in said), found[0] if found else None)


def with_token_rows(checkpoint: Checkpoint, rows: int) -> dict[str, int]:
    """The tensors that have a row for each token → how many numbers a row holds."""
    return {
        name: info.elements // rows
        for name, info in checkpoint.tensors.items()
        if rows and _may_have_rows(name) and _is_float(info) and rows_at(info, rows) is not None
    }


def of_unknown_names(checkpoint: Checkpoint, rows: int) -> list[str]:
    """Tensors that have as many rows as the embedding, and names that do not say that these are tokens'."""
    known = with_token_rows(checkpoint, rows)
    return [
        name
        for name, info in checkpoint.tensors.items()
        if rows >= FROM and name not in known and layer_of(name) is None and _is_float(info)
        if rows_at(info, rows) == 0 and not re.search(POSITIONS, name) and not NO_TEXT.search(name)
    ]


def unmatched_heads(checkpoint: Checkpoint, rows: int) -> list[str]:
    """The LM heads that have another number of rows than the embedding, so that nothing says whose these are."""
    return [
        name
        for name, info in checkpoint.tensors.items()
        if is_head(name) and not NO_TEXT.search(name) and info.shape and info.elements and info.shape[0] != rows
    ]


def rows_at(info: TensorInfo, rows: int) -> int | None:
    """The dimension of the rows: the first that is not 1; None where it is no dimension of that size."""
    at = next((place for place, size in enumerate(info.shape) if size != 1), 0)
    return at if info.shape and info.shape[at] == rows else None


def with_rows(info: TensorInfo, rows: int, wanted: int) -> TensorInfo:
    """The same tensor with another number of rows."""
    at = rows_at(info, rows)
    shape = tuple(wanted if place == at else size for place, size in enumerate(info.shape))
    return TensorInfo(info.dtype, shape, info.rounded)


def name_of_rows(checkpoint: Checkpoint, name: str) -> str | None:
    """The name under which a model has these rows: its own, or that of the matrix that it ties to; None for neither."""
    found = name if name in checkpoint.tensors else checkpoint.aliases.get(name)
    if found is None and is_head(name):
        embeddings = [one for one in checkpoint.tensors if is_embedding(one) and layer_of(one) is None]
        found = embeddings[0] if len(embeddings) == 1 else None
    return found


def _may_have_rows(name: str) -> bool:
    return layer_of(name) is None and (is_embedding(name) or is_head(name) or f".{name}".endswith(_HEADS))


def _is_float(info: TensorInfo) -> bool:
    return DTYPES[info.dtype].family == "float" and DTYPES[info.dtype].bits >= 8


def _vocabulary_sizes(level: Mapping[str, object]) -> list[int]:
    size = level.get("vocab_size")
    found = [size] if isinstance(size, int) else []
    for inner in level.values():
        if isinstance(inner, Mapping):
            found += _vocabulary_sizes(inner)
    return found
