"""`layer_replication`: an adapter of a model that has some layers of its base several times.

Kim et al. 2023, https://arxiv.org/abs/2312.15166 (SOLAR, depth up-scaling). The layers of the base are those that PEFT
takes: `layers` of the innermost `model`, or `encoder.layer` of BERT.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, field, frozen
from modelmerger import Checkpoint, Donor, FileIdentity, InputError, Problem, TensorInfo, shown

from modelmerger_plugins.peft_adapters.reading.config import AdapterConfig

_LAYER = re.compile(r"((?:model\.)*layers|(?:bert\.)?encoder\.layer)\.(0|[1-9][0-9]{0,5})\.(.+)", re.DOTALL)
MOST = 10_000
"""The most layers that an adapter may ask for."""
BY_LAYER = ("layer_types", "mlp_layer_types", "layers_block_type", "no_rope_layers")
"""Keys of config.json that hold a list with one entry a layer."""


@frozen(eq=False)
class Replicated(Checkpoint):
    """A view of a base that has some of its layers several times; no tensor is stored twice."""

    name: str
    """What messages call it: the base's name."""
    original: Checkpoint
    """The base."""
    layers: Sequence[int]
    """For each layer of the view, the layer of the base that it shows."""
    files: tuple[FileIdentity, ...] = field(init=False)
    """Those of the base."""
    donor: Donor = field(init=False)
    """The base's, with a config.json for the layers of the view."""
    aliases: Mapping[str, str] = field(init=False)
    """Those of the base."""
    _names: Mapping[str, str] = field(init=False, repr=False)
    """Name → name in the base."""
    tensors: Mapping[str, TensorInfo] = field(init=False)
    """By their names in the view."""

    @files.default
    def _files(self) -> tuple[FileIdentity, ...]:
        return self.original.files

    @donor.default
    def _donor(self) -> Donor:
        config = self.original.donor.config
        return evolve(self.original.donor, config=config and _repeated(config, self.layers))

    @aliases.default
    def _aliases(self) -> Mapping[str, str]:
        return self.original.aliases

    @_names.default
    def _names_in_base(self) -> Mapping[str, str]:
        """Layers stand in their new order, behind all other tensors."""
        names: dict[str, str] = {}
        by_layer: dict[int, list[re.Match[str]]] = {}
        for name in self.original.tensors:
            if match := _LAYER.fullmatch(name):
                by_layer.setdefault(int(match[2]), []).append(match)
            else:
                names[name] = name
        for position, layer in enumerate(self.layers):
            names |= {f"{match[1]}.{position}.{match[3]}": match[0] for match in by_layer[layer]}
        return names

    @tensors.default
    def _tensors(self) -> Mapping[str, TensorInfo]:
        return {name: self.original.tensors[in_base] for name, in_base in self._names.items()}

    @property
    def content(self) -> str:
        """The digest of what no file of the base holds."""
        return self.original.content

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Fills `buffer` with elements of the tensor of the base, as `Checkpoint.read` says."""
        self.original.read(self._names[tensor], start, stop, buffer)

    def prefetch(self, tensor: str, start: int, stop: int) -> None:
        """Tells the system that these elements of the base will be read soon."""
        self.original.prefetch(self._names[tensor], start, stop)


def replicated(base: Checkpoint, adapter: AdapterConfig) -> Checkpoint:
    """The model that the adapter belongs to: the base, or the view of it that `layer_replication` asks for.

    Raises `InputError` for layers that the base does not have.
    """
    ranges = adapter.values.get("layer_replication")
    if not ranges:
        return base
    count = _count(base)
    if not count:
        message = "wants layers of its base repeated (layer_replication), and the base has none that PEFT would repeat"
        raise InputError(Problem(f"{message}. Is it the right base model?", str(adapter.path)))
    if not _fits(ranges, count):
        wanted = f"pairs [from, to) of the base's layers 0 to {count}"
        message = f"sets layer_replication to {shown(ranges)}, where {wanted} are due"
        raise InputError(Problem(f"{message}. Is it the right base model?", str(adapter.path)))
    return Replicated(base.name, base, [layer for start, end in ranges for layer in range(start, end)])


def layers_of(checkpoint: Checkpoint | None) -> Sequence[int] | None:
    """The layers of its base that a view shows; None for any other checkpoint."""
    return checkpoint.layers if isinstance(checkpoint, Replicated) else None


def _count(base: Checkpoint) -> int:
    """How many layers the base has; 0 where one is missing."""
    found = {int(match[2]) for match in map(_LAYER.fullmatch, base.tensors) if match}
    return len(found) if found == set(range(len(found))) else 0


def _fits(ranges: Any, count: int) -> bool:
    pairs = isinstance(ranges, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(end) is int for end in pair) for pair in ranges
    )
    return pairs and all(0 <= start < end <= count for start, end in ranges) and _total(ranges) <= MOST


def _total(ranges: Sequence[Sequence[int]]) -> int:
    return sum(end - start for start, end in ranges)


def _repeated(config: Mapping[str, Any], layers: Sequence[int]) -> Mapping[str, Any]:
    """The base's config with as many layers, and each layer's entry in lists by layer."""
    lists = {key: config[key] for key in BY_LAYER if isinstance(config.get(key), list)}
    fitting = {key: [values[i] for i in layers] for key, values in lists.items() if len(values) > max(layers)}
    return {**config, "num_hidden_layers": len(layers), **fitting}
