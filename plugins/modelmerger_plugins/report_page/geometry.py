"""How the models of a merge lie to each other, tensor by tensor: collected during the merge, kept in its manifest.

With a base model, of each tensor: ‖Δᵢ‖² of each task vector Δᵢ = θᵢ − θ_base, ⟨Δᵢ, Δⱼ⟩ of each two, how many values
both change, and how many of those in opposite directions (the sign conflicts of Yadav et al. 2023,
https://arxiv.org/abs/2306.01708, section 3). Where the base is not read, the merged model is the origin of the
differences, and signs are not compared.

Every statistic is a whole number: a square or a product is summed over `OBSERVED` values at a time, in the dtype of the
merge, and that sum is rounded to a multiple of 2⁻⁸⁰. Whole numbers have one sum in any order, so neither threads nor
slices move it.
"""

import threading
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from attrs import frozen
from modelmerger import OBSERVED

if TYPE_CHECKING:
    from torch import Tensor

UNIT = 2.0**80
TILE = 16 * OBSERVED
"""Values looked at in one go."""
MERGED = "merged"
NOT_FINITE = "not finite"
_OWNER = "plugin report_page: "


def statistics(
    tensors: Sequence["Tensor"], merged: "Tensor", inputs: Sequence[int], base: int
) -> dict[str, int] | None:
    """What is observed of a slice: `inputs` are the indices of the models, and `base` is the index of the base model.

    None where there is nothing to compare: fewer than two models. Where values are not finite, their number alone.
    """
    models = dict(zip(inputs, tensors, strict=True))
    origin = models.pop(base, merged)
    has_base = origin is not merged
    if len(models) < (1 if has_base else 2):
        return None
    sums: dict[str, int] = {}
    try:
        for start in range(0, merged.numel(), TILE):
            here = slice(start, start + TILE)
            tiles = {index: vector[here] for index, vector in models.items()}
            for name, value in _of_tile(tiles, origin[here], merged[here] if has_base else None).items():
                sums[name] = sums.get(name, 0) + value
    except (OverflowError, ValueError):  # an infinity or a NaN is no whole number
        return {NOT_FINITE: merged.numel()}
    return sums


def _of_tile(models: Mapping[int, "Tensor"], origin: "Tensor", merged: "Tensor | None") -> dict[str, int]:
    """The statistics of some values; `merged` is given where the origin is the base model."""
    import torch

    moved: dict[Any, Tensor] = {i: torch.sub(vector, origin, out=_room(i, origin)) for i, vector in models.items()}
    found = {f"norm {i}": _squares(change) for i, change in moved.items()}
    found["origin" if merged is None else "base"] = _squares(origin)
    if merged is not None:
        found[f"norm {MERGED}"] = _squares(torch.sub(merged, origin, out=_room(MERGED, origin)))
    counts = {"values": origin.numel()}
    for (i, left), (j, right) in combinations(moved.items(), 2):
        product = torch.mul(left, right, out=_room("product", origin))
        found[f"dot {i} {j}"] = _sums(product)
        if merged is not None:
            signs = product.sign_()
            both, agreeing_more = sum(map(round, _squares(signs))), sum(map(round, _sums(signs)))
            counts |= {f"both {i} {j}": both, f"opposed {i} {j}": (both - agreeing_more) // 2}
    return counts | {name: sum(int(part * UNIT) for part in parts) for name, parts in found.items()}


class _Memory(threading.local):
    """Of one thread, so that no slice asks the system for pages again."""

    def __init__(self) -> None:
        self.rooms: dict[Any, Tensor] = {}


_memory = _Memory()


def _room(purpose: object, like: "Tensor") -> "Tensor":
    """A vector with undefined values, as long as `like`; the same memory for the same purpose."""
    room = _memory.rooms.get(purpose)
    if room is None or room.dtype != like.dtype or room.device != like.device:
        room = _memory.rooms[purpose] = like.new_empty(TILE)
    return room[: len(like)]


def _sums(terms: "Tensor") -> list[float]:
    """Sums of `OBSERVED` terms each, the last of those that are left."""
    whole = len(terms) // OBSERVED * OBSERVED
    return [*terms[:whole].view(-1, OBSERVED).sum(-1).tolist(), float(terms[whole:].sum())]


def _squares(values: "Tensor") -> list[float]:
    """The same of the squares, in one pass."""
    from torch.linalg import vector_norm

    whole = len(values) // OBSERVED * OBSERVED
    lengths = [*vector_norm(values[:whole].view(-1, OBSERVED), dim=-1).tolist(), float(vector_norm(values[whole:]))]
    return [length**2 for length in lengths]


@frozen
class Geometry:
    """The differences of models from an origin, of one tensor or several, by the models' index in the config."""

    from_base: bool
    """Whether the origin is the base model; else it is the merged one."""
    values: int
    """How many values the tensors have."""
    origin: float
    """The squared length of the origin."""
    norms: Mapping[str, float]
    """The squared length of each model's difference; `merged` is the merged model's."""
    dots: Mapping[tuple[str, str], float]
    """The scalar product of the differences of each two models."""
    both: Mapping[tuple[str, str], int]
    """How many values both of two models change; empty without a base model."""
    opposed: Mapping[tuple[str, str], int]
    """How many of these they change in opposite directions."""


def kept(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, int]]:
    """The statistics in a manifest, by tensor; a tensor with a slice of values that are not finite is left out."""
    found: dict[str, Mapping[str, int]] = {}
    for tensor, sums in manifest.get("observed", {}).items():
        mine = {key.removeprefix(_OWNER): value for key, value in sums.items() if key.startswith(_OWNER)}
        if mine and NOT_FINITE not in mine:
            found[tensor] = mine
    return found


def together(tensors: Sequence[Mapping[str, int]]) -> Geometry:
    """The geometry of some tensors as one, whose squares and products add up. All have a base, or none."""
    sums: dict[str, int] = {}
    for tensor in tensors:
        for key, value in tensor.items():
            sums[key] = sums.get(key, 0) + value

    def of(kind: str) -> dict[tuple[str, ...], int]:
        named = {tuple(key.split(" ")): value for key, value in sums.items()}
        return {name[1:]: value for name, value in named.items() if name[0] == kind}

    def pairs(kind: str) -> dict[tuple[str, str], int]:
        return {(name[0], name[1]): value for name, value in of(kind).items()}

    return Geometry(
        from_base="base" in sums,
        values=sums["values"],
        origin=(sums.get("base") or sums.get("origin") or 0) / UNIT,
        norms={name[0]: value / UNIT for name, value in of("norm").items()},
        dots={pair: value / UNIT for pair, value in pairs("dot").items()},
        both=pairs("both"),
        opposed=pairs("opposed"),
    )
