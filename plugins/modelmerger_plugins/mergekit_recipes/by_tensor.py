"""What a parameter comes to, tensor by tensor, in the form that our configs have for it.

mergekit's filters are parts of names, ours are patterns. Its gradients give the first value to everything outside the
layers; ours give the last one to what comes behind them, so the first one is written out where that matters.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import frozen

from modelmerger_plugins.mergekit_recipes.parameters import Entry, as_number

Numbers = float | list[float]
ANY_LAYER = "*.[0-9]*.*"
"""The pattern of names with the number of a layer in them."""
BEHIND = (
    "model.norm.weight",
    "model.norm.bias",
    "lm_head.weight",
    "lm_head.bias",
    "model.final_layernorm.weight",
    "transformer.ln_f.weight",
    "gpt_neox.final_layer_norm.weight",
    "embed_out.weight",
    "output.weight",
    "score.weight",
)
"""Names of tensors behind the layers, as models have them."""
_INSIDE = tuple(
    f".layers.{{}}.{name}.{kind}"
    for kind in ("weight", "bias")
    for name in (
        *(f"self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm", "rotary_emb")),
        *(f"mlp.{part}" for part in ("gate_proj", "up_proj", "down_proj", "gate", "experts.0")),
        *("input_layernorm", "post_attention_layernorm", "block_sparse_moe", "attention.dense", "mlp.dense_h_to_4h"),
    )
)
_NUMBER = re.compile(r"(?:^|(?<=\.))(?<!experts\.)\d+(?=\.|\Z)")
"""The number of a layer in a filter."""


@frozen
class Span:
    """Which layers a merge has, and what they are numbered by in the names that filters see."""

    count: int | None = None
    """How many; None where the recipe does not say."""
    first: int = 0
    """The number of the first one."""


def by_tensor(entries: Sequence[Entry], default: float | None, span: Span) -> Any:
    """A number, a list over the layers, or a mapping from patterns. default: for what no entry is for; None: nothing.

    None where nothing is given. Raises `ValueError` with a sentence for what is no number.
    """
    found: dict[str, Numbers] = {}
    for entry in entries:
        for pattern, numbers in _patterns(entry, span):
            found.setdefault(pattern, numbers)
    if default is not None:
        found.setdefault("default", default)
    if len(found) == 1 and "default" in found:
        return found["default"]
    return found or None


def differs_outside(entry: Entry) -> bool:
    """Whether tensors behind the layers have another value by mergekit than one would think: the first of the list."""
    value = entry.value
    return isinstance(value, tuple) and value[0] != value[-1] and any(entry.filter in name for name in BEHIND)


def _patterns(entry: Entry, span: Span) -> Iterator[tuple[str, Numbers]]:
    given = entry.value if isinstance(entry.value, tuple) else (entry.value,)
    values = [as_number(value) for value in given]
    inside: Numbers = values if len(set(values)) > 1 else values[0]
    outside = values[0]
    if span.count == 1:
        inside = values[-1]
    plain = outside == (inside[-1] if isinstance(inside, list) else inside)
    if not entry.filter:
        if not plain:
            yield ANY_LAYER, inside
        yield "default", inside if plain else outside
        return
    if span.count is not None and _NUMBER.search(entry.filter):
        yield from ((pattern, inside) for pattern in _renumbered(entry.filter, span))
        return
    part = re.sub(r"([*?[])", r"[\1]", entry.filter)
    behind, within = any(entry.filter in n for n in BEHIND), any(entry.filter in n for n in _INSIDE)
    if plain or not behind:
        yield f"*{part}*", inside
    elif not within:
        yield f"*{part}*", outside
    else:
        yield f"*.[0-9]*{part}*", inside
        yield f"*{part}*", outside


def _renumbered(part: str, span: Span) -> Iterator[str]:
    """The patterns of the layers that a filter with a number means, as they are numbered in the merge."""
    found = _NUMBER.search(part)
    if found is None or span.count is None:
        return
    before, number, behind = part[: found.start()], found[0], part[found.end() :]
    for layer in range(span.count):
        name = str(layer + span.first)
        same = name == number if before and behind else name.startswith(number) if before else name.endswith(number)
        if same:
            yield f"*{before or '.'}{layer}{behind or '.'}*"
