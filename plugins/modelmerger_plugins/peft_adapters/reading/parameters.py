"""`target_parameters`: which parameter of a module each pair of factors belongs to, and where the base's files hold it.

A module with several such parameters has its factors at `module.lora_A`, `module.base_layer.lora_A` and so on, and no
name says which is whose: shapes do. Experts that are one parameter in memory are a matrix each in the files of many
models.
"""

import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import frozen
from modelmerger import shown

from modelmerger_plugins.peft_adapters.changes.of_experts import OfExperts, Parameter
from modelmerger_plugins.peft_adapters.reading.experts import SPLIT, Holder, has_holders, has_parameter, holders
from modelmerger_plugins.peft_adapters.reading.misfits import MisfitError
from modelmerger_plugins.peft_adapters.reading.modules import Keys
from modelmerger_plugins.peft_adapters.reading.pairing import Pairing


@frozen
class Factors:
    """What one pair of factors is for: a matrix of `out` rows and `into` columns, or one for each expert."""

    a: str
    """The key of A."""
    b: str
    """The key of B."""
    out: int
    """Rows of B."""
    into: int
    """Columns of A."""
    ranks: int
    """Columns of B, rows of A: those of all experts together."""


@frozen(eq=False)
class TargetParameters:
    """Finds the parameters of an adapter's base that the adapter changes by name."""

    pair: Pairing
    """The adapter and its base."""

    def targets_in(self, module: str) -> list[str]:
        """The parameters of a module that `target_parameters` asks for, by PEFT's rule: by the ends of their names.

        A name without a dot is one of any module that has such a parameter.
        """
        found = set()
        for target in self.pair.config.targets:
            parent, _, name = target.rpartition(".")
            if f".{module}.{name}".endswith(f".{target}") and (parent or has_holders(self.pair, module, name)):
                found.add(name)
        return sorted(found)

    def without(self, modules: Iterable[str]) -> list[str]:
        """What `target_parameters` asks for, the base has, and none of these modules is changed in.

        Where no module is changed by any, all that it asks for.
        """
        there = {f".{module}.{name}" for module in modules for name in self.targets_in(module)}
        left = [name for name in self.pair.config.targets if not any(found.endswith(f".{name}") for found in there)]
        return [name for name in left if not there or has_parameter(self.pair.base, name)]

    def changes(self, module: str, levels: Sequence[Keys]) -> Iterator[tuple[str, OfExperts]]:
        """Base tensors and changes of a module. Raises `MisfitError`.

        `levels`: the module's tensors, those of the outermost layer first.
        """
        names = self.targets_in(module)
        if len(names) != len(levels):
            raise MisfitError(
                f"is one of {len(levels)} pairs of factors for {len(names)} parameters of {shown(module)} "
                "in target_parameters"
            )
        factors = [self._factors(keys) for keys in levels]
        held_by = {name: holders(self.pair, module, name) for name in names}
        order = tuple(_owner(of_level, held_by, module) for of_level in factors)
        if len(set(order)) < len(order):
            raise MisfitError(f"does not show by its shape which of {', '.join(names)} it is for")
        transposed = {name: _transposed(of_level, held_by[name]) for name, of_level in zip(order, factors, strict=True)}
        for name, of_level in zip(order, factors, strict=True):
            swapped = self._decided(module, name, transposed)
            parameter = Parameter(module, name, held_by[name][-1].experts.stop, order)
            scale = self._scale(f"{module}.{name}", of_level, parameter.experts)
            for holder in held_by[name]:
                there = parameter, holder.experts, holder.first, holder.last
                yield holder.tensor, OfExperts(of_level.a, of_level.b, scale, swapped, *there)

    def _decided(self, module: str, name: str, transposed: Mapping[str, bool | None]) -> bool:
        """Whether the base stores a parameter's matrices transposed: square ones as the others of their module are."""
        if (own := transposed[name]) is not None:
            return own
        others = {way for way in transposed.values() if way is not None} or self._beside(module, name)
        if len(others) != 1:
            raise MisfitError(
                "is for square matrices, and the adapter does not show whether they are stored transposed"
            )
        return others.pop()

    def _beside(self, module: str, name: str) -> set[bool]:
        """What the parameter that experts have besides a square one shows, of the two that transformers joins.

        Where one of the two is square, the other has twice as many outputs as inputs.
        """
        others = [other for other in SPLIT if other != name] if name in SPLIT else []
        shapes = [
            holders(self.pair, module, other)[0].shape for other in others if has_holders(self.pair, module, other)
        ]
        return {shape[1] < shape[2] for shape in shapes if len(shape) == 3 and shape[1] != shape[2]}

    def _factors(self, keys: Keys) -> Factors:
        if set(keys) != {"lora_A", "lora_B"}:
            raise MisfitError(f"is one of the parts {', '.join(sorted(keys))}, where lora_A and lora_B are due")
        a, b = (self.pair.shape(keys[role]) for role in ("lora_A", "lora_B"))
        if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
            raise MisfitError(f"has factors of the shapes {list(b)} and {list(a)}, which are no product")
        return Factors(keys["lora_A"], keys["lora_B"], b[0], a[1], a[0])

    def _scale(self, name: str, factors: Factors, experts: int) -> float:
        rank = self.pair.config.rank(name)
        if type(rank) is not int or rank * experts != factors.ranks or rank < 1:
            said = f"has rank {factors.ranks} for {experts} experts"
            raise MisfitError(f"{said}, and the adapter's config says {reprlib.repr(rank)} for each")
        return self.pair.config.scale(name, rank)


def _owner(factors: Factors, held_by: Mapping[str, Sequence[Holder]], module: str) -> str:
    """The parameter that a pair of factors is for."""
    fitting = [name for name, of_name in held_by.items() if _fits(factors, of_name)]
    if len(fitting) == 1:
        return fitting[0]
    reason = f"which fits {' and '.join(fitting) or 'none'} of {', '.join(held_by)} in {shown(module)}"
    raise MisfitError(f"is for matrices of shape {[factors.out, factors.into]}, {reason}")


def _fits(factors: Factors, of_one: Sequence[Holder]) -> bool:
    """Whether a pair of factors has the shape of a parameter. `of_one`: what holds the parameter."""
    if factors.ranks % of_one[-1].experts.stop:
        return False
    if of_one[0].last == 0:
        shape = of_one[0].shape
        matrix = (factors.out, factors.into)
        return matrix == shape[-2:] or (len(shape) == 3 and matrix == (shape[2], shape[1]))
    of_first = [holder for holder in of_one if holder.experts.start == 0]
    return (
        sum(holder.shape[0] for holder in of_first) == factors.out
        and {holder.shape[1] for holder in of_one} == {factors.into}
        and len(of_one) % len(of_first) == 0
        and all(holder.shape == of_first[i % len(of_first)].shape for i, holder in enumerate(of_one))
    )


def _transposed(factors: Factors, of_one: Sequence[Holder]) -> bool | None:
    """Whether the base stores an expert's matrix transposed; None where it is square and does not show."""
    if len(of_one[0].shape) == 2:
        return False
    return None if factors.out == factors.into else of_one[0].shape[1:] == (factors.into, factors.out)
