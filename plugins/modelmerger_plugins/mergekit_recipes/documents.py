"""The documents of a file in YAML 1.1, as mergekit reads it, and which of mergekit's programs they are for."""

import re
from collections.abc import Iterator
from typing import Any

from attrs import frozen
from modelmerger import ConfigError, Problem, shown

_MOE = (
    "is a recipe of mergekit-moe, which puts experts and gates together. No strategy here does: "
    "make the experts' model with mergekit-moe, then merge it here as any other"
)
_EVOLVE = (
    "is a config of mergekit-evolve, which searches for a recipe. Here: write the merge with {tune: [0, 1]} in "
    "the place of its numbers, and modelmerger tune finds them on lines of text; tasks of lm-eval are not searched on"
)
_EXTRACT = (
    "has settings of mergekit-extract-lora, which reads no file: they are flags (--max-rank 32). It makes an adapter "
    "of what a model changes of its base. No command here does: extract it there, and merge that adapter as any other"
)
_BAKLLAMA = (
    "is a config of bakllama, which mergekit had before it had recipes. Write merge_method: passthrough, and a slice "
    "with layer_range for each of the layer_slices"
)
OTHERS = {
    **dict.fromkeys(("experts", "shared_experts", "gate_mode", "experts_per_token"), _MOE),
    "genome": _EVOLVE,
    **dict.fromkeys(("max_rank", "max-rank", "finetuned_model", "embed_lora", "embed-lora"), _EXTRACT),
    **dict.fromkeys(("distribute_scale", "distribute-scale", "sv_epsilon", "sv-epsilon"), _EXTRACT),
    **dict.fromkeys(("skip_undecomposable", "skip-undecomposable", "save_module", "save-module"), _EXTRACT),
    "layer_slices": _BAKLLAMA,
}
"""A key of files for other programs of mergekit, and what to say of them. That for extraction has the names of its
flags, and of those of older versions."""
_KEYS = ("merge_method", *OTHERS)
_LOOKS = rf"""(?m)^["'{{\s]*({"|".join(_KEYS)})["']?\s*:"""
"""A key that only mergekit has at the top; whether it stands there is known once the text is parsed."""

MOST_NODES, MOST_DEPTH = 100_000, 50
"""Values in a recipe, with every alias written out, and how deep they lie in each other."""


@frozen(eq=False, repr=False)
class Documents:
    """The documents of a recipe, in the order of the file."""

    mappings: list[dict[str, Any]]
    """What each holds; texts, numbers and truths as YAML 1.1 has them."""
    twice: list[str]
    """Keys that a mapping has twice, each with its place."""


def looks_like_one(text: str) -> bool:
    """Whether parsing the text can show that it is mergekit's."""
    return any(key in text for key in _KEYS) and re.search(_LOOKS, text) is not None


def read_documents(text: str, source: str) -> Documents | None:
    """The documents, if they are for mergekit; None where they are not, or are no YAML at all.

    Raises `ConfigError` for those of its programs that have no counterpart here, and for documents that are mixed.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        twice = [place for node in yaml.compose_all(text, Loader=loader) for place in _twice(node)]
        found = [document for document in yaml.load_all(text, Loader=loader) if document is not None]
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, TypeError):
        return None
    if not found or not all(isinstance(document, dict) for document in found):
        return None
    found = [_unshared(document, source, [MOST_NODES], 0) for document in found]
    for document in found:
        if "strategy" in document or document.keys().isdisjoint(_KEYS):
            if len(found) > 1 and any("merge_method" in other for other in found):
                message = "holds several documents, of which one has no merge_method. Give it one, or remove it"
                raise ConfigError(Problem(message, source))
            return None
        for key, said in OTHERS.items():
            if key in document and "merge_method" not in document:
                raise ConfigError(Problem(said, source))
    return Documents(found, twice)


def _twice(node: Any, seen: set[int] | None = None) -> Iterator[str]:
    """Keys that stand twice in a mapping, anywhere below a node."""
    import yaml

    seen = set() if seen is None else seen
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _twice(item, seen)
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name in keys and name != "<<":
                yield f"line {key.start_mark.line + 1}: {shown(name, 40)}"
            keys.add(name)
            yield from _twice(value, seen)


def _unshared(value: Any, source: str, left: list[int], depth: int) -> Any:
    """The value with a copy in place of each alias. left: how many values there may still be."""
    left[0] -= 1
    if left[0] < 0 or depth > MOST_DEPTH:
        raise ConfigError(Problem(f"holds more than {MOST_NODES:,} values, or {MOST_DEPTH} levels. Shorten it", source))
    if isinstance(value, dict):
        return {str(key): _unshared(item, source, left, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_unshared(item, source, left, depth + 1) for item in value]
    return value
