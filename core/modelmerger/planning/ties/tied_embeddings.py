"""To which embedding a model ties its LM head, and, if it is an encoder-decoder, the embeddings of its two halves."""

from collections.abc import Sequence

from modelmerger.planning.tensor_names import is_embedding, layer_of
from modelmerger.values.checkpoint import Checkpoint

_HALVES = ("encoder", "decoder", "text_encoder", "text_decoder")
_OF_BOTH = {"shared": "embed_tokens", "word_embeddings": "word_embeddings"}
"""What the embedding of both halves is called → what that of each half is called."""
_TIED_TO_ENCODER = frozenset({"t5gemma2"})
"""Model types whose classes tie LM head and decoder to the embedding of the encoder."""


def tied_embedding(model: Checkpoint) -> str | None:
    """The stored embedding that others may be tied to; None where that is not certain."""
    found = [name for name in model.tensors if is_embedding(name) and layer_of(name) is None]
    if len(found) > 1 and is_encoder_decoder(model):
        half = "encoder." if _is_tied_to_encoder(model) else "decoder."
        found = [name for name in found if not is_of_half(name)] or [name for name in found if half in name]
    return found[0] if len(found) == 1 else None


def embeddings_of_halves(model: Checkpoint, embedding: str) -> Sequence[str]:
    """How transformers calls the embeddings of encoder and decoder where they are tied to that one; none of others."""
    if _is_tied_to_encoder(model):
        return [f"{module}.weight" for module in [_in_decoder(embedding)] if module]
    *above, kind, _ = ("", *embedding.split("."))
    if not is_encoder_decoder(model) or kind not in _OF_BOTH or is_of_half(embedding):
        return ()
    prefix = ".".join((*above[1:], ""))
    halves = [half for half in _HALVES if any(name.startswith(f"{prefix}{half}.") for name in model.tensors)]
    return [f"{prefix}{half}.{_OF_BOTH[kind]}.weight" for half in halves]


def beside_embedding(model: Checkpoint, embedding: str) -> dict[str, str]:
    """Tensors beside the decoder's embedding → those beside the encoder's, to which they are tied with it."""
    encoder, decoder = embedding.removesuffix("weight"), _in_decoder(embedding)
    if not _is_tied_to_encoder(model) or not decoder:
        return {}
    beside = [name.removeprefix(encoder) for name in model.tensors if name.startswith(encoder) and name != embedding]
    return {f"{decoder}.{name}": f"{encoder}{name}" for name in beside}


def bias_of_head(model: Checkpoint, head: str) -> dict[str, str]:
    """The bias of an LM head of BERT's kind → the one that it is tied to with it: `cls.predictions.bias`."""
    above = head.removesuffix(".decoder.weight")
    return {f"{above}.decoder.bias": f"{above}.bias"} if above != head and f"{above}.bias" in model.tensors else {}


def is_of_half(name: str) -> bool:
    """Whether an embedding is that of an encoder or a decoder alone."""
    return not {*_HALVES}.isdisjoint(name.split("."))


def is_encoder_decoder(model: Checkpoint) -> bool:
    """Whether the model's config says that it is one."""
    return (model.donor.config or {}).get("is_encoder_decoder") is True


def _is_tied_to_encoder(model: Checkpoint) -> bool:
    return (model.donor.config or {}).get("model_type") in _TIED_TO_ENCODER


def _in_decoder(embedding: str) -> str:
    """The module that is the decoder's embedding, by that of the encoder; empty where it is none of an encoder."""
    before, encoder, behind = embedding.rpartition("encoder.")
    return f"{before}decoder.{behind.split('.')[-2]}" if encoder and "." in behind else ""
