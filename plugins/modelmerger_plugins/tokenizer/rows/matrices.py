"""Which tensors of a model have a row for each token."""

import re
from collections.abc import Mapping

from modelmerger import DTYPES, Checkpoint, TensorInfo, is_embedding, is_head, layer_of

NO_TEXT = re.compile(r"audio|image|vision|video|codec|codebook|speech|vq|depth")
"""Parts of a model whose vocabularies are not of texts."""
SIZE = re.compile(r"(^|_)vocab_size($|_)")
"""Keys of the number of rows: `text_vocab_size` and `padded_vocab_size` of some models too."""
PER_LAYER = "embed_tokens_per_layer.weight"
EMBEDDINGS = (
    *("word_embedding.weight", "token_embedding.weight", "tokens_embed.weight", "transformer.w.weight"),
    *("embed_text_tokens.weight", "text_embed_tokens.weight"),
)
"""How names of further embeddings of tokens end."""
HEADS = (
    *("decoder.weight", "vocab_projector.weight", "output_layer.weight", "generator_lm_head.weight", "proj_out.weight"),
    *("head.weight", "text_lm_head.weight", "lm_loss.weight", "pred_layer.proj.weight", "output_projection.weight"),
    "lm_head.out_proj.weight",
)
"""How names of further heads end."""
BIASES = (
    *("lm_head.bias", "predictions.bias", "final_logits_bias", "embed_out.bias", "output.bias", "decoder.bias"),
    *("vocab_projector.bias", "generator_lm_head.bias", "lm_loss.bias", "pred_layer.proj.bias", "mlm_score.bias"),
    *("mlm_head.bias", "lm_head.out_proj.bias"),
)
"""How names end of what is added to the scores of tokens."""
OF_A_LAYER = (".embed_tokens.weight", ".shared_head.head.weight")
"""How names of the embedding and the head end that a layer has which predicts further tokens."""
POSITIONS = r"(^|[._])(pos|wpe|positions?|position_embeddings?)([._]|$)"
FROM = 1_000
"""Rows from which on it is no chance that a matrix has as many as the embedding."""
_EMBEDDINGS, _HEADS, _BIASES = (tuple(f".{end}" for end in ends) for ends in (EMBEDDINGS, HEADS, (*BIASES, PER_LAYER)))


def row_count(checkpoint: Checkpoint) -> int | None:
    """How many rows the embedding of tokens has; None where no tensor is one by its name, and has elements.

    Of several embeddings, the largest that has as many rows as the config says of a vocabulary, else the first; those
    of images and sounds only where there is no other.
    """
    found = {
        name: info.shape[0]
        for name, info in checkpoint.tensors.items()
        if _is_embedding(name) and len(info.shape) == 2 and info.elements and layer_of(name) is None and _is_float(info)
    }
    of_texts = [rows for name, rows in found.items() if not NO_TEXT.search(name)] or list(found.values())
    said = set(_vocabulary_sizes(checkpoint.donor.config or {}))
    return max((rows for rows in of_texts if rows in said), default=of_texts[0] if of_texts else None)


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


def of_other_sizes(checkpoint: Checkpoint, rows: int) -> list[str]:
    """Embeddings and LM heads that have another number of rows than the embedding, so that nothing says whose these
    are.
    """
    return [
        name
        for name, info in checkpoint.tensors.items()
        if is_head(name) or (layer_of(name) is None and (_is_embedding(name) or f".{name}".endswith(f".{PER_LAYER}")))
        if info.shape and info.elements and info.shape[0] != rows and not NO_TEXT.search(name)
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
    if found is None and _is_head(name):
        embeddings = [one for one in checkpoint.tensors if _is_embedding(one) and layer_of(one) is None]
        found = embeddings[0] if len(embeddings) == 1 else None
    return found


def _may_have_rows(name: str) -> bool:
    if layer_of(name) is not None:
        return f".{name}".endswith(OF_A_LAYER)
    return _is_embedding(name) or _is_head(name) or f".{name}".endswith(_BIASES)


def _is_embedding(name: str) -> bool:
    return is_embedding(name) or f".{name}".endswith(_EMBEDDINGS)


def _is_head(name: str) -> bool:
    return is_head(name) or (layer_of(name) is None and f".{name}".endswith(_HEADS))


def _is_float(info: TensorInfo) -> bool:
    return DTYPES[info.dtype].family == "float" and DTYPES[info.dtype].bits >= 8


def _vocabulary_sizes(level: Mapping[str, object]) -> list[int]:
    found: list[int] = []
    for key, value in level.items():
        if isinstance(value, Mapping) and not NO_TEXT.search(key):
            found += _vocabulary_sizes(value)
        elif SIZE.search(key) and isinstance(value, int):
            found.append(value)
    return found
