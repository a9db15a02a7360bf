"""Makes the plan: aligns the checkpoints, asks the strategy for coefficients, lays out the output, counts what it costs."""

import json
import os
from collections.abc import Iterable, Sequence

import importlib_metadata
from attrs import field, frozen
from blake3 import blake3

from modelmerger.alignment import Aligned, align
from modelmerger.checkpoint import Checkpoint, TensorInfo
from modelmerger.dtypes import from_config_name
from modelmerger.errors import ConfigError, ModelCompatibilityError, raise_errors
from modelmerger.hooks import Hooks, described
from modelmerger.layout import Layout, OutputTensor
from modelmerger.plan import Action, MergePlan, PlannedModel, TensorPlan
from modelmerger.settings import Settings, shard_bytes
from modelmerger.tiling import check_tiling

MOST_SLICE, LEAST_SLICE = 1 << 18, 1 << 14
PROCESS_MEMORY = 230 << 20
"""Resident bytes of Python with torch imported."""
MOST_IN_FLOAT32 = {"F16": 3, "BF16": 31}
"""So many inputs may be added up in float32 where a dtype of p significant bits is written: each of n coefficients, products and
sums is rounded by 2⁻²⁴, and (n + 1)·2⁻²³ ≤ 2⁻ᵖ·2⁻¹⁰ keeps the result within half a unit in the last place × (1 + 2⁻¹⁰)."""


def make_plan(
    hooks: Hooks, checkpoints: Sequence[Checkpoint], settings: Settings, revisions: Sequence[str] = ()
) -> MergePlan:
    """The plan of merging these checkpoints: the models in the order of the config, then the base model if one is given.

    `revisions`: the commit of each checkpoint, empty where it has none; left out where none of them has.
    Raises `ModelCompatibilityError` with every tensor that does not fit, `ConfigError` for weights that make no sense.
    """
    donor = len(settings.models) if settings.base_model is not None else 0
    aligned, problems = align(checkpoints, donor)
    raise_errors(problems, ModelCompatibilityError)
    planner = _TensorPlanner(hooks, checkpoints, settings, donor)
    tensors = [planner.plan(tensor) for tensor in aligned]
    outputs = [OutputTensor(t.name, t.dtype, t.shape, TensorInfo(t.dtype, t.shape).bytes) for t in tensors]
    layout = hooks.save_model(outputs, shard_bytes(settings.options.max_shard_size))
    check_tiling(layout, outputs)
    workers, slice_elements = _effort(settings, tensors)
    return MergePlan(
        strategy=settings.strategy,
        granularity=hooks.strategy.traits.granularity,
        donor=donor,
        models=_planned_models(checkpoints, settings, revisions),
        inputs=[file for checkpoint in checkpoints for file in checkpoint.files],
        tensors=tensors,
        layout=layout,
        workers=workers,
        slice_elements=slice_elements,
        bytes_read=sum(_bytes_read(hooks, checkpoints, tensor) for tensor in tensors),
        bytes_written=sum(file.size for file in layout.files),
        memory=_memory(hooks, tensors, workers, slice_elements),
        digest=_digest(hooks, settings, checkpoints, layout),
    )


@frozen(eq=False)
class _TensorPlanner:
    hooks: Hooks
    checkpoints: Sequence[Checkpoint]
    settings: Settings
    donor: int
    _known: dict[tuple[int, ...], tuple[tuple[int, ...], tuple[float, ...] | None]] = field(factory=dict)

    def plan(self, tensor: Aligned) -> TensorPlan:
        info = tensor.info
        inputs, coefficients = self._inputs(info.shape)
        if tensor.exact or info.elements == 0:
            others = () if info.elements == 0 else tuple(i for i in inputs if i != self.donor)
            dtype = info.dtype if tensor.exact else self._written(info.dtype)
            return TensorPlan(
                tensor.name, dtype, info.shape, "copy", (self.donor, *others), None, "F32", tensor.renames
            )
        dtype = self._written(info.dtype)
        stored = {self.checkpoints[i].tensors[tensor.renames.get(i, tensor.name)].dtype for i in inputs}
        action: Action = "combine" if self.hooks.strategy.linear else "merge"
        many = action == "combine" and len(inputs) > MOST_IN_FLOAT32.get(dtype, 511)
        compute = "F64" if dtype in ("F32", "F64") or "F64" in stored or many else "F32"
        return TensorPlan(tensor.name, dtype, info.shape, action, inputs, coefficients, compute, tensor.renames)

    def _written(self, dtype: str) -> str:
        wanted = self.settings.options.torch_dtype
        return dtype if wanted == "auto" else from_config_name(wanted)

    def _inputs(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
        """Which checkpoints are read, and with what coefficients where these are known before anything is read."""
        if shape not in self._known:
            self._known[shape] = self._ask(shape)
        return self._known[shape]

    def _ask(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
        models = self.settings.models
        base = (len(models),) if self.hooks.strategy.traits.needs_base else ()
        if not self.hooks.strategy.linear:
            return tuple(i for i, model in enumerate(models) if model.weight != 0) + base, None
        found = self.hooks.find_coefficients(
            [model.weight for model in models],
            [model.operation for model in models],
            self.settings.strategy_options,
            shape=shape,
        )
        if found is None:
            return (*range(len(models)), *base), None
        pairs = [(i, c) for i, c in zip((*range(len(models)), *base), found, strict=True) if c != 0]
        if not pairs:
            raise ConfigError(
                "every coefficient of this merge is zero, so nothing would be left. Give a weight other than 0."
            )
        return tuple(i for i, _ in pairs), tuple(c for _, c in pairs)


def _planned_models(
    checkpoints: Sequence[Checkpoint], settings: Settings, revisions: Sequence[str]
) -> list[PlannedModel]:
    commits = revisions or [""] * len(checkpoints)
    models = [
        PlannedModel(model.name, model.path, model.weight, model.operation, commit)
        for model, commit in zip(settings.models, commits, strict=False)
    ]
    if settings.base_model is not None:
        models.append(PlannedModel(checkpoints[-1].name, settings.base_model, None, "add", commits[-1]))
    return models


def _effort(settings: Settings, tensors: Sequence[TensorPlan]) -> tuple[int, int]:
    """Workers, and elements in a slice: fewer where more models are read, so that memory does not grow with their number."""
    options = settings.options
    workers = 1 if options.low_memory_mode or options.sequential_loading else len(os.sched_getaffinity(0))
    most = max((len(tensor.inputs) for tensor in tensors), default=1)
    return workers, LEAST_SLICE if options.low_memory_mode else max(LEAST_SLICE, MOST_SLICE // max(1, most // 2))


def _bytes_read(hooks: Hooks, checkpoints: Sequence[Checkpoint], tensor: TensorPlan) -> int:
    sizes = [checkpoints[i].tensors[tensor.renames.get(i, tensor.name)].bytes for i in tensor.inputs]
    if tensor.action == "copy":  # what several models have is compared first
        return sum(sizes) + sizes[0] * (len(sizes) > 1)
    measured = (tensor.action == "combine" and tensor.coefficients is None) or (
        tensor.action == "merge" and hooks.measures
    )
    return sum(sizes) * (2 if measured else 1)


def _memory(hooks: Hooks, tensors: Sequence[TensorPlan], workers: int, slice_elements: int) -> int:
    """Expected peak: the process, and for each worker the raw and the converted slices of all inputs and of the result."""
    most = max((len(tensor.inputs) for tensor in tensors), default=1)
    largest = 0
    if hooks.strategy.traits.granularity == "whole":
        largest = max((TensorInfo("F64", t.shape).elements for t in tensors if t.action == "merge"), default=0)
    per_element = 8 * (2 * most + 2) if any(tensor.compute == "F64" for tensor in tensors) else 4 * (2 * most + 2)
    return PROCESS_MEMORY + workers * max(slice_elements, largest) * per_element


def _digest(hooks: Hooks, settings: Settings, checkpoints: Sequence[Checkpoint], layout: Layout) -> str:
    """Names everything that decides the output's bytes: config, inputs as they are, plugins, torch, and the layout."""
    options = settings.options
    hasher = blake3()
    decisive = {
        "strategy": settings.strategy,
        "models": [[m.path, m.weight, m.name, m.operation] for m in settings.models],
        "base": settings.base_model,
        "options": [options.torch_dtype, options.seed, options.allow_nonfinite, repr(settings.strategy_options)],
        "options of plugins": [[name, repr(value)] for name, value in sorted(settings.plugin_options.items())],
        "plugins": [described(provider) for provider in hooks.providers],
        "strategy source": hooks.strategy.fingerprint,
        "torch": importlib_metadata.version("torch"),
        "inputs": [[_identity(checkpoint), checkpoint.donor.config] for checkpoint in checkpoints],
    }
    hasher.update(json.dumps(decisive, sort_keys=True, default=repr).encode())
    for part in _layout_parts(layout):
        hasher.update(part)
    return hasher.hexdigest()


def _identity(checkpoint: Checkpoint) -> list[list[int | str]]:
    return [[f.path, f.device, f.inode, f.size, f.mtime_ns, f.ctime_ns] for f in checkpoint.files]


def _layout_parts(layout: Layout) -> Iterable[bytes]:
    for file in layout.files:
        yield f"\n{file.name} {file.size}\n".encode()
        for placement in file.placements:
            yield f"{placement}\n".encode()
        for offset, content in file.fixed:
            yield f"{offset} ".encode() + content
    for name, content in layout.documents.items():
        yield f"\n{name}\n".encode() + content
