"""How a model holds the experts of its layers: all in two tensors, or each by itself. Told by names and shapes."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from attrs import evolve, frozen
from modelmerger import DTYPES, Checkpoint, Problem, TensorInfo, amount

from modelmerger_plugins.names.view import Piece, PiecedView, RenamedView

EXPERTS = "experts"
FUSED = "gate_up_proj", "down_proj"
"""The two tensors, (experts, 2 · inner, outer) and (experts, outer, inner): no file has both kinds transposed."""
SINGLE = ("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2")
"""What the three matrices of one expert are called, those that are joined first."""
WIDEST_OF_QUANTISED = 8
"""Bits of the widest numbers that may be quantised, and mean nothing without their scales."""


@frozen
class Layout:
    """The experts of a model."""

    leaves: tuple[str, ...]
    """The last parts of the names: of `FUSED`, or one of `SINGLE`."""
    sizes: Mapping[str, tuple[int, int, int]]
    """What stands before them, for each layer, → number of experts, inner and outer size."""

    def shapes(self, parent: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The names and shapes of a layer's tensors, in the order in which their numbers follow each other."""
        count, inner, outer = self.sizes[parent]
        if self.leaves == FUSED:
            yield f"{parent}.{FUSED[0]}", (count, 2 * inner, outer)
            yield f"{parent}.{FUSED[1]}", (count, outer, inner)
            return
        gate, up, down = self.leaves
        for leaves, shape in (((gate, up), (inner, outer)), ((down,), (outer, inner))):
            yield from ((f"{parent}.{expert}.{leaf}.weight", shape) for expert in range(count) for leaf in leaves)


def with_experts_of(donor: Checkpoint, model: Checkpoint, notes: tuple[Problem, ...]) -> Checkpoint:
    """The model with its experts held as the donor holds them; itself where they are, or where that is not certain.

    notes: what is to be said of the model already.
    """
    ours, theirs = layout_of(donor.tensors), layout_of(model.tensors)
    if ours is None or theirs is None or ours.leaves == theirs.leaves:
        return model
    if set(ours.sizes.values()) != set(theirs.sizes.values()):
        return model
    new = Layout(ours.leaves, theirs.sizes)
    if FUSED not in (ours.leaves, theirs.leaves):
        return _respelled(donor, model, theirs, new, notes)
    pieces = {name: [Piece(name, 0, info.elements)] for name, info in model.tensors.items()}
    tensors = dict(model.tensors)
    for parent in theirs.sizes:
        before = [name for name, _ in theirs.shapes(parent)]
        if len({(model.tensors[name].dtype, model.tensors[name].written) for name in before}) > 1:
            return model
        info, stretch = model.tensors[before[0]], _Stretch([(name, model.tensors[name].elements) for name in before])
        for name in before:
            del pieces[name], tensors[name]
        for name, shape in new.shapes(parent):
            tensors[name], pieces[name] = evolve(info, shape=shape), stretch.take(prod(shape))
    how = "put together" if ours.leaves == FUSED else "taken apart"
    message = f"the experts of {amount(len(theirs.sizes), 'layer')} are {how}, as '{donor.name}' holds them."
    return PiecedView(model, tensors, pieces, (*notes, Problem(message, model.place, severity="note")))


def _respelled(
    donor: Checkpoint, model: Checkpoint, old: Layout, new: Layout, notes: tuple[Problem, ...]
) -> RenamedView:
    """The model with the words for the matrices of one expert that the new layout has."""
    names = {name: name for name in model.tensors}
    for parent in old.sizes:
        for (before, _), (name, _) in zip(old.shapes(parent), new.shapes(parent), strict=True):
            del names[before]
            names[name] = before
    message = (
        f"the experts of {amount(len(old.sizes), 'layer')} under the names of '{donor.name}': "
        f"{', '.join(new.leaves)} for {', '.join(old.leaves)}."
    )
    return RenamedView(model, names, {}, (*notes, Problem(message, model.place, severity="note")))


def layout_of(tensors: Mapping[str, TensorInfo]) -> Layout | None:
    """How the experts are held; None where there are none, or where any layer has them in some other way."""
    layers: dict[str, dict[str, TensorInfo]] = {}
    for name, info in tensors.items():
        parent, found, rest = name.rpartition(f".{EXPERTS}.")
        if found:
            layers.setdefault(f"{parent}.{EXPERTS}", {})[rest] = info
    for leaves in (FUSED, *SINGLE):
        sizes = {parent: _sizes(leaves, held) for parent, held in layers.items()}
        known = {parent: size for parent, size in sizes.items() if size is not None}
        if known and len(known) == len(layers):
            return Layout(leaves, known)
    return None


def _sizes(leaves: tuple[str, ...], held: Mapping[str, TensorInfo]) -> tuple[int, int, int] | None:
    """Number of experts, inner and outer size, if these are the tensors of a layer, and no others are there."""
    down = held.get(leaves[-1] if leaves == FUSED else f"0.{leaves[-1]}.weight")
    if down is None or len(down.shape) != (3 if leaves == FUSED else 2):
        return None
    outer, inner = down.shape[-2:]
    size = (down.shape[0] if leaves == FUSED else len(held) // len(leaves), inner, outer)
    due = {name.removeprefix("."): shape for name, shape in Layout(leaves, {"": size}).shapes("")}
    same = due.keys() == held.keys() and all(held[name].shape == shape for name, shape in due.items())
    return size if same and min(size) > 0 and all(map(_is_plain, held.values())) else None


def _is_plain(info: TensorInfo) -> bool:
    dtype = DTYPES[info.dtype]
    return dtype.family == "float" and dtype.bits > WIDEST_OF_QUANTISED


class _Stretch:
    """Tensors as one row of numbers, which is handed out from its beginning."""

    def __init__(self, tensors: Sequence[tuple[str, int]]) -> None:
        self._left = [Piece(name, 0, elements) for name, elements in tensors]

    def take(self, elements: int) -> list[Piece]:
        taken: list[Piece] = []
        while elements:
            piece = self._left.pop(0)
            here = min(elements, piece.stop - piece.start)
            taken.append(evolve(piece, stop=piece.start + here))
            if piece.start + here < piece.stop:
                self._left.insert(0, evolve(piece, start=piece.start + here))
            elements -= here
        return taken
