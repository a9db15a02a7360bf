"""The parts of a merged adapter under the names that PEFT has for them."""

from collections.abc import Mapping, Sequence

from attrs import evolve

from modelmerger_plugins.peft_adapters.merging.experts import ExpertsPart
from modelmerger_plugins.peft_adapters.merging.factored import FactoredPart
from modelmerger_plugins.peft_adapters.merging.part import Part
from modelmerger_plugins.peft_adapters.merging.replacing import ReplacingPart
from modelmerger_plugins.peft_adapters.reading.modules import BELOW, PREFIX


def with_peft_names(parts: Sequence[Part]) -> list[Part]:
    """The parts with their final keys: what a layer with factors has besides is its base layer's.

    All of `target_parameters` get one rank: PEFT warns of a rank_pattern for them. `parts`: measured ones.
    """
    layers, parameters = layer_ranks(parts), parameter_ranks(parts)
    return [_with_peft_names(part, layers, parameters) for part in parts]


def _with_peft_names(part: Part, layers: Mapping[str, int], parameters: Mapping[str, int]) -> Part:
    module, _, name = part.in_memory.rpartition(".")
    if isinstance(part, ReplacingPart) and part.indices is None and module in layers:
        return evolve(part, key=f"{PREFIX}{module}{BELOW}.{name}")
    if isinstance(part, ExpertsPart):
        own = part.like.parameter
        nested = [name for name in own.nested if f"{own.module}.{name}" in parameters]
        layer = f"{PREFIX}{own.module}{BELOW * nested.index(own.name)}"
        keys = (f"{layer}.lora_A.weight", f"{layer}.lora_B.weight")
        return evolve(part, keys=keys, rank=max(parameters.values()))
    return part


def layer_ranks(parts: Sequence[Part]) -> dict[str, int]:
    """The modules that have factors, and their ranks."""
    return {part.in_memory.rpartition(".")[0]: part.rank for part in parts if isinstance(part, FactoredPart)}


def parameter_ranks(parts: Sequence[Part]) -> dict[str, int]:
    """The parameters of experts that have factors, and their ranks."""
    return {part.tensor: part.rank for part in parts if isinstance(part, ExpertsPart)}
