"""Which tensors of an adapter change which tensor of its base, and how: by the names PEFT writes, against the base's shapes."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field, frozen
from modelmerger import Checkpoint, Problem
from modelmerger.values.dtypes import DTYPES
from modelmerger.values.text import shown

from modelmerger_plugins.peft_adapters.changes import (
    Change,
    Decomposed,
    Hadamard,
    Kronecker,
    LowRank,
    MisfitError,
    Replaced,
    ReplacedRows,
    Scaled,
    Shifted,
    Vera,
)
from modelmerger_plugins.peft_adapters.config import AdapterConfig
from modelmerger_plugins.peft_adapters.parameters import BELOW, Parameters

PREFIX = "base_model.model."
_PART = re.compile(
    r"(.+)\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|ia3_l|hada_\w+|lokr_\w+|vera_lambda_[bd]|token_adapter\.\w+)(\.weight|\.bias)?"
)
_WRAPPED = re.compile(r"\.(base_layer|modules_to_save)(?=\.)")
_OF_EMBEDDINGS = {"lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"}
_SHARED = ("base_model.vera_A", "base_model.vera_B")
"""What all layers of a VeRA adapter have in common."""
_OF_LAYERS = {"lora_A", "lora_B", "lora_B.bias", "lora_magnitude_vector"}
Shape = tuple[int, ...]


@frozen(eq=False)
class Reading:
    """What an adapter's tensors mean for a base.

    changes: base tensor → what is done to it, in order. problems: all that does not fit; nothing may be merged with one.
    """

    changes: dict[str, list[Change]] = field(factory=dict)
    problems: list[Problem] = field(factory=list)


def read_keys(config: AdapterConfig, adapter: Checkpoint, base: Checkpoint) -> Reading:
    """Every tensor of the adapter belongs to a tensor of the base of the right shape, or there is a problem that lists it."""
    modules: dict[str, dict[str, str]] = {}
    reading = Reading()
    for key in adapter.tensors:
        if DTYPES[adapter.tensors[key].dtype].family != "float":
            message = f"is {adapter.tensors[key].dtype}, and only floating point is merged."
            reading.problems.append(Problem(message, adapter.place, key))
        elif config.kind == "VERA" and key in _SHARED:
            continue
        elif not key.startswith(PREFIX):
            reading.problems.append(_unmatched(adapter, key, f"does not begin with {PREFIX!r}"))
        elif found := _PART.fullmatch(key.removeprefix(PREFIX)):
            modules.setdefault(found[1], {})[found[2] + (found[3] if found[3] == ".bias" else "")] = key
        else:
            modules.setdefault(_WRAPPED.sub("", key.removeprefix(PREFIX)), {})["whole"] = key
    _read_parameters(Parameters(config, adapter, base), modules, reading)
    if config.values.get("trainable_token_indices") and not any("token_adapter" in key for key in adapter.tensors):
        message = "holds no rows for trainable_token_indices. Is the adapter complete?"
        reading.problems.append(Problem(message, adapter.place))
    reader = _Reader(config, adapter, base, _Orientation(config, adapter, base, modules))
    for module, parts in sorted(modules.items(), key=lambda item: "whole" not in item[1]):
        try:
            for tensor, change in reader.changes(module, parts):
                reading.changes.setdefault(tensor, []).append(change)
        except MisfitError as misfit:
            reading.problems.extend(_unmatched(adapter, key, str(misfit)) for key in parts.values())
    return reading


def _read_parameters(parameters: Parameters, modules: dict[str, dict[str, str]], reading: Reading) -> None:
    """Takes the modules of `target_parameters` out of all of them, and reads them."""
    there = sorted({module.replace(BELOW, "") for module in modules})
    for name in parameters.without(there):
        message = f"holds no factors of {shown(name)}, which target_parameters names. Is the adapter complete?"
        reading.problems.append(Problem(message, parameters.adapter.place))
    for module in there:
        if not parameters.named_in(module):
            continue
        nested = sorted((name for name in modules if name.replace(BELOW, "") == module), key=len)
        levels = [modules.pop(name) for name in nested]
        try:
            for tensor, change in parameters.changes(module, levels):
                reading.changes.setdefault(tensor, []).append(change)
        except MisfitError as misfit:
            keys = (key for parts in levels for key in parts.values())
            reading.problems.extend(_unmatched(parameters.adapter, key, str(misfit)) for key in keys)


def _unmatched(adapter: Checkpoint, key: str, reason: str) -> Problem:
    return Problem(f"{reason}.", adapter.place, key)


@frozen(eq=False)
class _Orientation:
    """Whether a layer stores its matrix transposed, as Conv1D does. Square matrices do not show it: others of the adapter tell."""

    config: AdapterConfig
    adapter: Checkpoint
    base: Checkpoint
    modules: Mapping[str, Mapping[str, str]]

    def swapped(self, module: str, shape: Shape, out: int, into: int) -> bool:
        if out != into:
            if shape == (out, into):
                return False
            if shape == (into, out):
                return True
            raise MisfitError(f"is for a matrix of shape {[out, into]}, and '{self.base.name}' has {list(shape)}")
        if shape != (out, into):
            raise MisfitError(f"is for a matrix of shape {[out, into]}, and '{self.base.name}' has {list(shape)}")
        votes = {leaf: swapped for leaf, swapped in self._votes() if leaf == module.rpartition(".")[2]}
        everyone = set(votes.values()) or {swapped for _, swapped in self._votes()}
        if len(everyone) > 1:
            raise MisfitError("is for a square matrix, and the adapter does not show whether it is stored transposed")
        return everyone.pop() if everyone else self.config.flag("fan_in_fan_out")

    def _votes(self) -> Iterator[tuple[str, bool]]:
        for module, parts in self.modules.items():
            info = self.base.tensors.get(f"{module}.weight")
            if info is None or not {"lora_A", "lora_B"} <= parts.keys() or len(info.shape) != 2:
                continue
            out, into = self.adapter.tensors[parts["lora_B"]].shape[0], self.adapter.tensors[parts["lora_A"]].shape[-1]
            if out != into:
                yield module.rpartition(".")[2], info.shape == (into, out)


@frozen(eq=False)
class _Reader:
    config: AdapterConfig
    adapter: Checkpoint
    base: Checkpoint
    orientation: _Orientation

    def changes(self, module: str, parts: Mapping[str, str]) -> Iterator[tuple[str, Change]]:
        """Base tensor and change, for the tensors of one module by their part. Raises `MisfitError`."""
        names = set(parts)
        if names == {"whole"}:
            yield self._whole(module, parts["whole"])
        elif names == {"token_adapter.trainable_tokens_delta"}:
            yield self._tokens(module, *parts.values())
        elif {"lora_embedding_A", "lora_embedding_B"} <= names <= _OF_EMBEDDINGS:
            yield self._embedding(module, parts)
        elif {"lora_A", "lora_B"} <= names <= _OF_LAYERS:
            yield from self._lora(module, parts)
        elif names == {"ia3_l"}:
            yield from self._ia3(module, parts["ia3_l"])
        elif names == {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}:
            yield self._loha(module, parts)
        elif names == {"vera_lambda_b", "vera_lambda_d"}:
            yield self._vera(module, parts["vera_lambda_b"], parts["vera_lambda_d"])
        elif {"lokr_w1", "lokr_w2"} <= {name.removesuffix("_a").removesuffix("_b") for name in names}:
            yield self._lokr(module, parts)
        else:
            raise MisfitError(
                f"is one of the parts {', '.join(sorted(names))} of {shown(module)}, which together mean nothing"
            )

    def _whole(self, name: str, key: str) -> tuple[str, Change]:
        if (found := self._shape_of(name)) != self._shape(key):
            raise MisfitError(f"has shape {list(self._shape(key))}, and '{self.base.name}' has {list(found)}")
        return name, Replaced(key)

    def _tokens(self, module: str, key: str) -> tuple[str, Change]:
        tensor = f"{module}.weight"
        rows, width = self._shape_of(tensor)
        indices = self.config.values.get("trainable_token_indices")
        if isinstance(indices, dict):
            matching = [value for name, value in indices.items() if f".{module}".endswith(f".{name}")]
            indices = matching[0] if len(matching) == 1 else None
        sound = isinstance(indices, list) and all(type(i) is int and 0 <= i < rows for i in indices)
        if (
            not sound
            or self._shape(key) != (len(indices or ()), width)
            or len(set(indices or ())) != len(indices or ())
        ):
            raise MisfitError(f"has shape {list(self._shape(key))}, and does not go with trainable_token_indices")
        return tensor, ReplacedRows(key, tuple(indices or ()))

    def _embedding(self, module: str, parts: Mapping[str, str]) -> tuple[str, Change]:
        tensor = f"{module}.weight"
        a, b = self._shape(parts["lora_embedding_A"]), self._shape(parts["lora_embedding_B"])
        shape = self._shape_of(tensor)
        if len(a) != 2 or len(b) != 2 or shape != (a[1], b[0]):
            raise MisfitError(f"is for an embedding of shape {[a[-1], b[0]]}, and '{self.base.name}' has {list(shape)}")
        scale = self._scale(module, a[0], b[1])
        change = LowRank(parts["lora_embedding_A"], parts["lora_embedding_B"], scale, swapped=True)
        return tensor, self._decomposed(change, parts, shape)

    def _lora(self, module: str, parts: Mapping[str, str]) -> Iterator[tuple[str, Change]]:
        tensor = f"{module}.weight"
        a, b = self._shape(parts["lora_A"]), self._shape(parts["lora_B"])
        shape = self._shape_of(tensor)
        if len(a) != len(b) or len(a) < 2 or len(a) != len(shape):
            raise MisfitError(f"has {len(a)} dimensions, and '{self.base.name}' has shape {list(shape)}")
        swapped = False
        if len(a) == 2:
            swapped = self.orientation.swapped(module, shape, b[0], a[1])
        elif (b[0], *a[1:]) != shape or set(b[2:]) != {1}:
            raise MisfitError(f"is for a tensor of shape {[b[0], *a[1:]]}, and '{self.base.name}' has {list(shape)}")
        scale = self._scale(module, a[0], b[1])
        yield tensor, self._decomposed(LowRank(parts["lora_A"], parts["lora_B"], scale, swapped), parts, shape)
        if key := parts.get("lora_B.bias"):
            bias = f"{module}.bias"
            if self._shape_of(bias) != self._shape(key):
                raise MisfitError(
                    f"has shape {list(self._shape(key))}, and the bias of the base {list(self._shape_of(bias))}"
                )
            yield bias, Shifted(key, scale)

    def _decomposed(self, change: LowRank, parts: Mapping[str, str], shape: Shape) -> Change:
        key = parts.get("lora_magnitude_vector")
        if (key is not None) != self.config.flag("use_dora"):
            raise MisfitError("contradicts use_dora in the adapter's config")
        if key is None:
            return change
        wanted = shape[-1] if change.swapped else shape[0]
        if self.adapter.tensors[key].elements != wanted:
            raise MisfitError(f"has {self.adapter.tensors[key].elements} magnitudes, where {wanted} are due")
        return Decomposed(change, key)

    def _ia3(self, module: str, key: str) -> Iterator[tuple[str, Change]]:
        shape, vector = self._shape_of(f"{module}.weight"), self._shape(key)
        if len(shape) != 2 or len(vector) != 2 or 1 not in vector:
            raise MisfitError(f"has shape {list(vector)}, and '{self.base.name}' has {list(shape)}")
        scales_outputs = vector[1] == 1
        by_row = scales_outputs != self.config.flag("fan_in_fan_out")
        if vector[0] * vector[1] != (shape[0] if by_row else shape[1]):
            raise MisfitError(f"has shape {list(vector)}, and '{self.base.name}' has {list(shape)}")
        yield f"{module}.weight", Scaled(key, by_row)
        if scales_outputs and f"{module}.bias" in self.base.tensors:
            yield f"{module}.bias", Scaled(key, by_row=False)

    def _loha(self, module: str, parts: Mapping[str, str]) -> tuple[str, Change]:
        shape = self._shape_of(f"{module}.weight")
        pairs = (("hada_w1_a", "hada_w1_b"), ("hada_w2_a", "hada_w2_b"))
        for one, two in pairs:
            left, right = self._shape(parts[one]), self._shape(parts[two])
            if (
                len(shape) != 2
                or len(left) != 2
                or len(right) != 2
                or (left[0], right[1]) != shape
                or left[1] != right[0]
            ):
                raise MisfitError(f"is a factor of another shape than '{self.base.name}' has, {list(shape)}")
        rank = self._shape(parts["hada_w1_a"])[1]
        first, second = ((parts[one], parts[two]) for one, two in pairs)
        return f"{module}.weight", Hadamard((first, second), self._scale(module, rank, rank))

    def _lokr(self, module: str, parts: Mapping[str, str]) -> tuple[str, Change]:
        shape = self._shape_of(f"{module}.weight")
        left, left_shape = self._factor(parts, "lokr_w1")
        right, right_shape = self._factor(parts, "lokr_w2")
        product = tuple(one * two for one, two in zip(left_shape, right_shape, strict=True))
        if len(shape) != 2 or product != shape or len(parts) != len(left) + len(right):
            raise MisfitError(f"is for a matrix of shape {list(product)}, and '{self.base.name}' has {list(shape)}")
        rank = self.config.rank(module)
        if type(rank) is not int or not 0 < rank < 1 << 63:
            raise MisfitError(f"has the rank {rank!r} in the adapter's config")
        return f"{module}.weight", Kronecker(left, right, self.config.scale(module, rank))

    def _vera(self, module: str, out_scales: str, rank_scales: str) -> tuple[str, Change]:
        shape = self._shape_of(f"{module}.weight")
        if any(key not in self.adapter.tensors or len(self._shape(key)) != 2 for key in _SHARED):
            raise MisfitError(f"goes with {' and '.join(_SHARED)}, which are not both there as matrices")
        (ranks, inputs), (outputs, columns) = (self._shape(key) for key in _SHARED)
        out, rank = self.adapter.tensors[out_scales].elements, self.adapter.tensors[rank_scales].elements
        ways = [swapped for swapped in (False, True) if len(shape) == 2 and shape[swapped] == out <= outputs]
        fitting = [swapped for swapped in ways if shape[not swapped] <= inputs]
        if not fitting or not ranks == columns == rank == self.config.rank(module):
            said = f"scales {out} outputs and {rank} ranks of projections {[outputs, columns]} and {[ranks, inputs]}"
            raise MisfitError(f"{said}, and '{self.base.name}' has {list(shape)}")
        swapped = self.config.flag("fan_in_fan_out") if len(fitting) > 1 else fitting[0]
        return f"{module}.weight", Vera(*_SHARED, out_scales, rank_scales, out, shape[not swapped], swapped)

    def _factor(self, parts: Mapping[str, str], name: str) -> tuple[tuple[str, ...], Shape]:
        """The keys of a Kronecker factor, which is one matrix or a product of two, and its shape."""
        keys = tuple(parts[part] for part in (name, f"{name}_a", f"{name}_b") if part in parts)
        shapes = [self._shape(key) for key in keys]
        sound = all(len(shape) == 2 for shape in shapes)
        if sound and len(shapes) == 1 and name in parts:
            return keys, shapes[0]
        if sound and len(shapes) == 2 and name not in parts and shapes[0][1] == shapes[1][0]:
            return keys, (shapes[0][0], shapes[1][1])
        raise MisfitError(
            f"is a part of a Kronecker factor that is no matrix ({', '.join(map(str, map(list, shapes)))})"
        )

    def _scale(self, module: str, rank: int, other: int) -> float:
        wanted: Any = self.config.rank(module)
        if rank != other or rank != wanted:
            raise MisfitError(
                f"has rank {rank if rank == other else [rank, other]}, and the adapter's config says {wanted!r}"
            )
        return self.config.scale(module, rank)

    def _shape(self, key: str) -> Shape:
        return self.adapter.tensors[key].shape

    def _shape_of(self, tensor: str) -> Shape:
        """Of a tensor of the base. Raises `MisfitError` where it has none, or one that cannot be changed."""
        info = self.base.tensors.get(tensor)
        if info is None:
            if tied := self.base.aliases.get(tensor):
                raise MisfitError(f"changes {tensor}, which '{self.base.name}' ties to {tied}: untie the base first")
            raise MisfitError(f"matches nothing: '{self.base.name}' has no tensor {shown(tensor)}")
        if DTYPES[info.dtype].family != "float":
            raise MisfitError(f"changes a tensor that is {info.dtype} in '{self.base.name}': dequantise the base first")
        return info.shape
