"""Models with vocabularies of their own, and the same models extended on disk by a few lines of torch."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from conftest import random_tensors, write_model
from safetensors.torch import load_file

EMBEDDING, HEAD, BIAS = "model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"
COLUMNS = 6
Tensors = dict[str, torch.Tensor]


def fast(tokens: Mapping[str, int], added: Sequence[str] = ()) -> str:
    """A tokenizer.json, as far as it says what the tokens are."""
    plain = {token: row for token, row in tokens.items() if token not in added}
    more = [{"id": tokens[token], "content": token, "special": True} for token in added]
    model = {"type": "BPE", "vocab": plain, "merges": []}
    return json.dumps({"version": "1.0", "added_tokens": more, "model": model}, ensure_ascii=False)


def listed(words: str) -> dict[str, int]:
    return {word: row for row, word in enumerate(words.split())}


def write(
    path: Path,
    seed: int,
    tokens: Mapping[str, int] | None,
    rows: int,
    *,
    dtype: torch.dtype = torch.bfloat16,
    tied: bool = False,
    added: Sequence[str] = (),
    config: Mapping[str, Any] | None = None,
) -> Path:
    shapes: dict[str, Sequence[int]] = {EMBEDDING: (rows, COLUMNS), "model.layers.0.mlp.weight": (5, COLUMNS)}
    if not tied:
        shapes |= {HEAD: (rows, COLUMNS), BIAS: (rows,)}
    told = {"model_type": "llama", "hidden_size": COLUMNS, "vocab_size": rows, "tie_word_embeddings": tied}
    write_model(path, random_tensors(seed, dtype, shapes), {**told, **(config or {})})
    if tokens is not None:
        (path / "tokenizer.json").write_text(fast(tokens, added))
    return path


def tensors_of(path: Path) -> Tensors:
    return load_file(path / "model.safetensors")


def extended(
    models: Mapping[str, tuple[Tensors, Mapping[str, int]]],
    wanted: Mapping[str, int],
    rows: int,
    source: str,
    base: str | None = None,
) -> dict[str, Tensors]:
    """What one would have written to disk beforehand: each model with the wanted tokens, the lacking ones from the
    base, or the mean of all that have them; padding from the first model."""
    found: dict[str, Tensors] = {}
    donor = base or next(iter(models))
    for name, (tensors, own) in models.items():
        found[name] = dict(tensors)
        for key in (key for key in (EMBEDDING, HEAD, BIAS) if key in tensors):
            made = torch.zeros(rows, *tensors[key].shape[1:], dtype=tensors[key].dtype)
            for token, row in wanted.items():
                if token in own:
                    made[row] = tensors[key][own[token]]
                elif base is not None and token in models[base][1]:
                    made[row] = models[base][0][key][models[base][1][token]].to(made.dtype)
                else:
                    having = [
                        (theirs[key][tokens[token]]).float() for theirs, tokens in models.values() if token in tokens
                    ]
                    made[row] = (sum(having[1:], having[0]) / len(having)).to(made.dtype)
            for row in set(range(rows)) - set(wanted.values()):
                theirs, tokens = models[donor]
                if row < len(theirs[key]) and row not in tokens.values():
                    made[row] = theirs[key][row].to(made.dtype)
                    continue
                theirs, tokens = models[source]
                unused = [i for i in range(len(theirs[key])) if i not in tokens.values()] or range(len(theirs[key]))
                mean = sum(theirs[key][i].float() for i in unused) / len(unused)
                made[row] = mean.to(made.dtype)
            found[name][key] = made
    return found
