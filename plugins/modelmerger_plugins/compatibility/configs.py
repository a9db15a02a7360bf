"""Compares configs whole: every key that both have, at every level, but for those that change nothing."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from modelmerger import Checkpoint, Problem, Settings, is_embedding, is_head, shown

from modelmerger_plugins.compatibility.layer_kinds import KEYS
from modelmerger_plugins.compatibility.spelling import ROPE_TYPE, flattened_alike
from modelmerger_plugins.special_floats import bare

SIZES = ("hidden_size", "n_embd", "d_model")
LAYERS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "num_decoder_layers",
    "encoder_layers",
    "decoder_layers",
)
BY_LAYER = ("no_rope_layers", "mlp_layer_types", "mlp_only_layers", "moe_layers", "first_k_dense_replace")
"""Other keys that say something of single layers."""
HEADS = r"(^|_)n?heads?(_|$)|^d_kv$|^multi_query$|^new_decoder_architecture$"
"""A pattern of keys that say how a matrix is cut into heads, which shapes do not tell."""
ROOM = 120
"""Characters for keys with both values, then as many for keys alone."""

Difference = tuple[str, Any, Any]
"""Key, value in the donor's config, value in the other."""


def compare_configs(donor: Checkpoint, other: Checkpoint, settings: Settings) -> Iterator[Problem]:
    """An error for all keys that make it another architecture, and a warning for all others that differ."""
    ours, theirs = donor.donor.config, other.donor.config
    if ours is None or theirs is None or ours == theirs:
        return
    differences = [
        found for found in _differences(*flattened_alike(ours, theirs)) if not _is_of_layers(found, settings)
    ]
    if not (_has_vocabulary(donor) and _has_vocabulary(other)):  # otherwise the matrices say how large it is
        sizes = ours.get("vocab_size"), theirs.get("vocab_size")
        differences += [("vocab_size", *sizes)] if None not in sizes and sizes[0] != sizes[1] else []
    may_lack = settings.options.missing_tensors != "error"
    grave = [found for found in differences if _is_grave(found, may_lack)]
    light = [found for found in differences if not _is_grave(found, may_lack)]
    place = f"{other.place}/config.json"
    if grave:
        yield Problem(f"{_listed(grave, donor.name)}. Merge models of one architecture.", place)
    if light:
        taken = ", whose config is taken." if len(light) == 1 else f". The config of '{donor.name}' is taken."
        yield Problem(_listed(light, donor.name) + taken, place, severity="warning")


def _is_of_layers(difference: Difference, settings: Settings) -> bool:
    """Whether it is about single layers: their kinds are compared elsewhere, and a stack may have others."""
    last = difference[0].rpartition(".")[2]
    return last in KEYS or (settings.composes and last in (*LAYERS, *BY_LAYER))


def _differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[Difference]:
    """Of keys that both have: what a class takes where a config says nothing, only transformers knows.

    No class scales rotary positions where nothing says so.
    """
    for one, another in ((ours, theirs), (theirs, ours)):
        for key in one:
            if ROPE_TYPE in key:
                another.setdefault(key, "default")
    return [
        (key, ours[key], theirs[key]) for key in ours if key in theirs and not _is_same(key, ours[key], theirs[key])
    ]


def _is_same(key: str, ours: Any, theirs: Any) -> bool:
    if ours == theirs:
        return True
    last = key.rpartition(".")[2]
    if last == "model_type":  # that of a part of a model has grown longer
        names = [str(value).replace("_", "") for value in (ours, theirs)]
        return names[0] == names[1] or (key != last and (names[0] in names[1] or names[1] in names[0]))
    if None in (ours, theirs):
        told = theirs if ours is None else ours
        derived = isinstance(told, list) or last == "head_dim"
        return derived or (not told and not last.endswith("_token_id"))
    return False


def _is_grave(difference: Difference, may_lack: bool) -> bool:
    """Whether the forward pass would be that of another model. may_lack: whether layers may be missing."""
    key, ours, theirs = difference
    last = key.rpartition(".")[2]
    if last in LAYERS:
        return not may_lack
    return (
        key in ("model_type", "vocab_size")
        or last in SIZES
        or (re.search(HEADS, last) is not None and ours is not theirs)
    )


def _has_vocabulary(checkpoint: Checkpoint) -> bool:
    return any(is_embedding(name) or is_head(name) for name in checkpoint.tensors)


def _listed(differences: Sequence[Difference], donor: str) -> str:
    """`rope_theta is 1 here and 2 in 'a', hidden_act 'silu' and 'gelu'; so do sliding_window, and 2 more keys`."""
    text = named = ""
    unnamed = 0
    for key, ours, theirs in differences:
        here, there = shown(repr(bare(theirs)), 30), shown(repr(bare(ours)), 30)
        if not text:
            text = f"{shown(key, 60)} is {here} here and {there} in '{donor}'"
        elif not named and len(text) < ROOM:
            text += f", {shown(key, 60)} {here} and {there}"
        elif len(named) < ROOM // 2:
            named += f", {shown(key, 60)}" if named else shown(key, 60)
        else:
            unnamed += 1
    rest = f"{named} and {unnamed} more" if unnamed else named
    return f"{text}; other keys that differ: {rest}" if rest else text
