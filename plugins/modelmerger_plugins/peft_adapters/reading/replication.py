"""`layer_replication`: an adapter of a model that has some layers of its base several times.

Kim et al. 2023, https://arxiv.org/abs/2312.15166 (SOLAR, depth up-scaling). The layers of the base are those that PEFT
takes: `layers` of the innermost `model`, or `encoder.layer` of BERT.
"""

import re
from collections.abc import Sequence
from typing import Any

from modelmerger import Checkpoint, InputError, LayerView, Problem, shown

from modelmerger_plugins.peft_adapters.reading.config import AdapterConfig

_LAYER = re.compile(r"((?:model\.)*layers|(?:bert\.)?encoder\.layer)\.(0|[1-9][0-9]{0,5})\..+", re.DOTALL)
MOST = 10_000
"""The most layers that an adapter may ask for."""


def replicated(base: Checkpoint, adapter: AdapterConfig) -> Checkpoint:
    """The model that the adapter belongs to: the base, or the view of it that `layer_replication` asks for.

    Raises `InputError` for layers that the base does not have.
    """
    ranges = adapter.values.get("layer_replication")
    if not ranges:
        return base
    prefix, count = _layers(base)
    if not count:
        message = "wants layers of its base repeated (layer_replication), and the base has none that PEFT would repeat"
        raise InputError(Problem(f"{message}. Is it the right base model?", str(adapter.path)))
    if not _fits(ranges, count):
        wanted = f"pairs [from, to) of the base's layers 0 to {count}"
        message = f"sets layer_replication to {shown(ranges)}, where {wanted} are due"
        raise InputError(Problem(f"{message}. Is it the right base model?", str(adapter.path)))
    return LayerView(base, [layer for start, end in ranges for layer in range(start, end)], prefix)


def layers_of(checkpoint: Checkpoint | None) -> Sequence[int] | None:
    """The layers of its base that a view shows; None for any other checkpoint."""
    return checkpoint.layers if isinstance(checkpoint, LayerView) else None


def _layers(base: Checkpoint) -> tuple[str, int]:
    """What stands before the numbers of the base's layers, and how many there are; 0 where one is missing."""
    found = {(match[1], int(match[2])) for match in map(_LAYER.fullmatch, base.tensors) if match}
    prefix = next(iter(found), ("", 0))[0]
    return prefix, len(found) if found == {(prefix, number) for number in range(len(found))} else 0


def _fits(ranges: Any, count: int) -> bool:
    pairs = isinstance(ranges, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(end) is int for end in pair) for pair in ranges
    )
    return pairs and all(0 <= start < end <= count for start, end in ranges) and _total(ranges) <= MOST


def _total(ranges: Sequence[Sequence[int]]) -> int:
    return sum(end - start for start, end in ranges)
