"""`target_parameters`: which parameter of a module each pair of factors belongs to, and where the base's files hold it.

A module with several such parameters has its factors at `module.lora_A`, `module.base_layer.lora_A` and so on, and no name says
which is whose: shapes do. Experts that are one parameter in memory are a matrix each in the files of many models.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import frozen
from modelmerger import Checkpoint
from modelmerger.values.text import shown

from modelmerger_plugins.peft_adapters.changes import MisfitError, OfExperts
from modelmerger_plugins.peft_adapters.config import AdapterConfig

BELOW = ".base_layer"
SPLIT = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "down_proj": (("down_proj",), ("w2",)),
}
"""What files call the matrices of one expert that transformers joins into one parameter."""
RENAMED = (".mlp.", ".block_sparse_moe.")
"""What transformers calls a module, and what files of Mixtral call it."""


@frozen
class Piece:
    """A tensor of the base that holds some experts of a parameter: of each, the outputs from `first` to `last`."""

    tensor: str
    shape: tuple[int, ...]
    experts: range
    first: int
    last: int


@frozen
class Factors:
    """What one pair of factors is for: matrices of `out` rows and `into` columns, for all experts together of `columns` ranks."""

    a: str
    b: str
    out: int
    into: int
    columns: int


@frozen(eq=False)
class Parameters:
    """Finds the parameters of an adapter's base that the adapter changes by name."""

    config: AdapterConfig
    adapter: Checkpoint
    base: Checkpoint

    def named_in(self, module: str) -> list[str]:
        """The parameters of a module that `target_parameters` names."""
        parents = ((name.rpartition(".")[0], name) for name in self.config.targets)
        return sorted({_leaf(name) for parent, name in parents if f".{module}".endswith(f".{parent}")})

    def without(self, modules: Iterable[str]) -> list[str]:
        """What `target_parameters` names, and is in none of these modules."""
        there = {(module, leaf) for module in modules for leaf in self.named_in(module)}
        return [
            name for name in self.config.targets if not any(f".{module}.{leaf}".endswith(f".{name}") for module, leaf in there)
        ]  # fmt: skip

    def changes(self, module: str, levels: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, OfExperts]]:
        """Base tensor and change. levels: the factors of the module, outermost first. Raises `MisfitError`."""
        names = self.named_in(module)
        if len(names) != len(levels):
            raise MisfitError(
                f"is one of {len(levels)} pairs of factors for {len(names)} parameters of {shown(module)} in target_parameters"
            )
        factors = [self._factors(parts) for parts in levels]
        pieces = {name: self._pieces(module, name) for name in names}
        order = tuple(self._owner(of_level, pieces, module) for of_level in factors)
        if len(set(order)) < len(order):
            raise MisfitError(f"does not show by its shape which of {', '.join(names)} it is for")
        transposed = {
            name: self._transposed(of_level, pieces[name]) for name, of_level in zip(order, factors, strict=True)
        }
        for name, of_level in zip(order, factors, strict=True):
            swapped = self._decided(name, transposed)
            experts = pieces[name][-1].experts.stop
            scale = self._scale(f"{module}.{name}", of_level, experts)
            for piece in pieces[name]:
                yield (
                    piece.tensor,
                    OfExperts(
                        of_level.a, of_level.b, scale, swapped, module, order, name, experts, piece.experts, piece.first, piece.last
                    ),
                )  # fmt: skip

    def _factors(self, parts: Mapping[str, str]) -> Factors:
        if set(parts) != {"lora_A", "lora_B"}:
            raise MisfitError(f"is one of the parts {', '.join(sorted(parts))}, where lora_A and lora_B are due")
        a, b = (self.adapter.tensors[parts[name]].shape for name in ("lora_A", "lora_B"))
        if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            raise MisfitError(f"has factors of the shapes {list(b)} and {list(a)}, which are no product")
        return Factors(parts["lora_A"], parts["lora_B"], b[0], a[1], a[0])

    def _pieces(self, module: str, name: str) -> list[Piece]:
        """Where the base's files hold a parameter: in one tensor, or in some for each expert."""
        for place in (module, f".{module}.".replace(*RENAMED).strip(".")):
            whole = self.base.tensors.get(f"{place}.{name}")
            if whole is not None and len(whole.shape) in (2, 3):
                experts = whole.shape[0] if len(whole.shape) == 3 else 1
                return [Piece(f"{place}.{name}", whole.shape, range(experts), 0, 0)]
            for leaves in SPLIT.get(name, ()):
                if pieces := self._split(place, leaves):
                    return pieces
        raise MisfitError(f"matches nothing: '{self.base.name}' has no {shown(f'{module}.{name}')}, whole or by expert")

    def _split(self, place: str, leaves: Sequence[str]) -> list[Piece]:
        pieces: list[Piece] = []
        for expert in range(len(self.base.tensors)):
            names = [f"{place}.{expert}.{leaf}.weight" for leaf in leaves]
            found = [self.base.tensors[name].shape for name in names if name in self.base.tensors]
            if len(found) < len(names) or any(len(shape) != 2 for shape in found):
                break
            first = 0
            for tensor, shape in zip(names, found, strict=True):
                pieces.append(Piece(tensor, shape, range(expert, expert + 1), first, first + shape[0]))
                first += shape[0]
        return pieces

    def _owner(self, factors: Factors, pieces: Mapping[str, Sequence[Piece]], module: str) -> str:
        fitting = [name for name, of_name in pieces.items() if _fits(factors, of_name)]
        if len(fitting) == 1:
            return fitting[0]
        reason = f"which fits {' and '.join(fitting) or 'none'} of {', '.join(pieces)} in {shown(module)}"
        raise MisfitError(f"is for matrices of shape {[factors.out, factors.into]}, {reason}")

    @staticmethod
    def _transposed(factors: Factors, pieces: Sequence[Piece]) -> bool | None:
        """Whether the base stores an expert's matrix transposed; None where it is square and does not show."""
        if len(pieces[0].shape) == 2:
            return False
        return None if factors.out == factors.into else pieces[0].shape[1:] == (factors.into, factors.out)

    @staticmethod
    def _decided(name: str, transposed: Mapping[str, bool | None]) -> bool:
        """Square matrices are stored as the others of their module are."""
        others = {way for way in transposed.values() if way is not None}
        if (own := transposed[name]) is not None:
            return own
        if len(others) != 1:
            raise MisfitError(
                "is for square matrices, and the adapter does not show whether they are stored transposed"
            )
        return others.pop()

    def _scale(self, name: str, factors: Factors, experts: int) -> float:
        rank = self.config.rank(name)
        if type(rank) is not int or rank * experts != factors.columns:
            raise MisfitError(
                f"has rank {factors.columns} for {experts} experts, and the adapter's config says {rank!r} for each"
            )
        return self.config.scale(name, rank)


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _fits(factors: Factors, pieces: Sequence[Piece]) -> bool:
    if factors.columns % pieces[-1].experts.stop:
        return False
    if pieces[0].last == 0:
        shape = pieces[0].shape
        matrix = (factors.out, factors.into)
        return matrix == shape[-2:] or (len(shape) == 3 and matrix == (shape[2], shape[1]))
    per_expert = [piece for piece in pieces if piece.experts.start == 0]
    return (
        sum(piece.shape[0] for piece in per_expert) == factors.out
        and {piece.shape[1] for piece in pieces} == {factors.into}
        and len(pieces) % len(per_expert) == 0
        and all(piece.shape == per_expert[i % len(per_expert)].shape for i, piece in enumerate(pieces))
    )
