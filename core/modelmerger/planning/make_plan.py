"""Makes the plan: aligns the checkpoints, asks the strategy for coefficients, lays out the output, counts what it costs."""

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from math import prod

import importlib_metadata
from attrs import evolve, field, frozen
from blake3 import blake3

from modelmerger.hooks.calls import Hooks, described
from modelmerger.planning.alignment import Aligned, align
from modelmerger.planning.layout_check import check_tiling
from modelmerger.planning.matrices import kept_matrices, tied_heads
from modelmerger.planning.slices import MEASURED, OBSERVED
from modelmerger.planning.updates import MergedUpdates
from modelmerger.values.checkpoint import Checkpoint, TensorInfo
from modelmerger.values.dtypes import DTYPES, from_config_name
from modelmerger.values.errors import ConfigError, ModelCompatibilityError, Problem, raise_errors
from modelmerger.values.layout import BLOCK, Layout, OutputTensor
from modelmerger.values.plan import Action, MergePlan, PlannedModel, TensorPlan
from modelmerger.values.settings import Settings, shard_bytes
from modelmerger.values.weights import weights_by_tensor

MOST_SLICE, FRUGAL_SLICE, LEAST_SLICE = 1 << 19, 1 << 16, OBSERVED
PROCESS_MEMORY = 240 << 20
"""Resident bytes of Python with torch and modelmerger imported."""
MOST_IN_FLOAT32 = {"F16": 3, "BF16": 31}
"""So many inputs may be added up in float32 where a dtype of p significant bits is written: each of n coefficients, products and
sums is rounded by 2⁻²⁴, and (n + 1)·2⁻²³ ≤ 2⁻ᵖ·2⁻¹⁰ keeps the result within half a unit in the last place × (1 + 2⁻¹⁰)."""

Inputs = tuple[tuple[int, ...], tuple[float, ...] | None]
"""Checkpoints, and one coefficient each or None."""
_NOTHING_LEFT = "every coefficient of this merge is zero, so nothing would be left. Give a weight other than 0."


def make_plan(
    hooks: Hooks,
    checkpoints: Sequence[Checkpoint],
    settings: Settings,
    revisions: Sequence[str] = (),
    updates: MergedUpdates | None = None,
) -> MergePlan:
    """The plan of merging these checkpoints: the models in the order of the config, then the base model if one is given.

    `revisions`: the commit of each checkpoint, empty where it has none; left out where none of them has. `updates`: what became of
    their updates, where these are merged.
    Raises `ModelCompatibilityError` with every tensor that does not fit, `ConfigError` for weights that make no sense.
    """
    donor = len(settings.models) if settings.base_model is not None else 0
    if updates is None:
        tensors, notes = _merged_tensors(hooks, checkpoints, settings, donor)
        read, memory = checkpoints, 0
    else:
        tensors, notes = [_read_tensor(updates, name) for name in updates.checkpoint.tensors], list(updates.notes)
        read, memory = [updates.checkpoint], updates.memory
    layout = _layout(hooks, settings, tensors, updates)
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
        bytes_read=sum(_bytes_read(hooks, read, tensor) for tensor in tensors),
        bytes_written=sum(file.size for file in layout.files),
        memory=_memory(hooks, settings, tensors, workers, slice_elements) + workers * memory,
        digest=_digest(hooks, settings, checkpoints, layout),
        notes=notes,
        updates=updates is not None,
        writes=updates.writes if updates else "model",
    )


def _merged_tensors(
    hooks: Hooks, checkpoints: Sequence[Checkpoint], settings: Settings, donor: int
) -> tuple[list[TensorPlan], list[Problem]]:
    aligned, notes = align(checkpoints, donor, settings.options.missing_tensors)
    raise_errors(notes, ModelCompatibilityError)
    kept, of_matrices = kept_matrices(checkpoints[donor], settings.options)
    aligned = [evolve(tensor, taken=True) if tensor.name in kept else tensor for tensor in aligned]
    weights, of_weights = weights_by_tensor(
        [model.weight for model in settings.models],
        [tensor.name for tensor in aligned],
        [tensor.name for tensor in aligned if not tensor.taken],
        tied_heads(checkpoints[donor]),
    )
    raise_errors(of_weights, ConfigError)
    planner = _TensorPlanner(hooks, checkpoints, settings, weights)
    return [planner.plan(tensor) for tensor in aligned], [*notes, *of_matrices, *of_weights]


def _read_tensor(updates: MergedUpdates, name: str) -> TensorPlan:
    """A tensor that is written as it is read; what is not floating point keeps its bits."""
    info, dtype = updates.checkpoint.tensors[name], updates.dtypes[name]
    if info.elements == 0 or DTYPES[info.dtype].family != "float":
        return TensorPlan(name, dtype, info.shape, "copy", (0,), None, "F32")
    compute = "F64" if info.dtype == "F64" or dtype in ("F32", "F64") else "F32"
    return TensorPlan(name, dtype, info.shape, "take", (0,), (1.0,), compute)


def _layout(hooks: Hooks, settings: Settings, tensors: Sequence[TensorPlan], updates: MergedUpdates | None) -> Layout:
    """An adapter is one file: PEFT reads no shards."""
    outputs = [OutputTensor(t.name, t.dtype, t.shape, TensorInfo(t.dtype, t.shape).bytes) for t in tensors]
    options = settings.options
    if updates is None or updates.writes == "model":
        layout = hooks.save_model(outputs, shard_bytes(options.max_shard_size), options.use_safetensors)
    else:
        layout = hooks.save_model(outputs, sys.maxsize, options.use_safetensors, "adapter_model")
    check_tiling(layout, outputs)
    return layout if updates is None else evolve(layout, documents={**layout.documents, **updates.documents})


@frozen(eq=False)
class _TensorPlanner:
    hooks: Hooks
    checkpoints: Sequence[Checkpoint]
    settings: Settings
    weights: Mapping[str, tuple[float, ...]]
    _known: dict[tuple[tuple[int, ...], tuple[float, ...]], Inputs] = field(factory=dict)

    def plan(self, tensor: Aligned) -> TensorPlan:
        info = tensor.info
        weights = self.weights.get(tensor.name, ())
        inputs, coefficients = ((tensor.source,), (1.0,)) if tensor.taken else self._inputs(tensor, weights)
        if tensor.exact or info.elements == 0:
            others = () if info.elements == 0 else tuple(i for i in inputs if i != tensor.source)
            dtype = info.dtype if tensor.exact else self._written(info.dtype)
            return TensorPlan(
                tensor.name, dtype, info.shape, "copy", (tensor.source, *others), None, "F32", tensor.renames
            )
        dtype = self._written(info.dtype)
        stored = {self.checkpoints[i].tensors[tensor.renames.get(i, tensor.name)].dtype for i in inputs}
        action: Action = "take" if tensor.taken else "combine" if self.hooks.strategy.linear else "merge"
        many = action == "combine" and len(inputs) > MOST_IN_FLOAT32.get(dtype, 511)
        compute = "F64" if dtype in ("F32", "F64") or "F64" in stored or many else "F32"
        return TensorPlan(
            tensor.name, dtype, info.shape, action, inputs, coefficients, compute, tensor.renames, weights
        )

    def _written(self, dtype: str) -> str:
        wanted = self.settings.options.torch_dtype
        return dtype if wanted == "auto" else from_config_name(wanted)

    def _inputs(self, tensor: Aligned, weights: tuple[float, ...]) -> Inputs:
        """Which checkpoints are read, and with what coefficients where these are known before anything is read."""
        key = tensor.info.shape, weights
        if key not in self._known:
            try:
                self._known[key] = self._ask(*key)
            except ConfigError as error:
                raise ConfigError(
                    *(evolve(p, where=p.where or "models", tensor=tensor.name) for p in error.problems)
                ) from error
        return self._known[key]

    def _ask(self, shape: tuple[int, ...], weights: tuple[float, ...]) -> Inputs:
        models = self.settings.models
        base = (len(models),) if self.hooks.strategy.traits.needs_base else ()
        if not self.hooks.strategy.linear:
            inputs = tuple(i for i, weight in enumerate(weights) if weight != 0) + base
            if not inputs:
                raise ConfigError(_NOTHING_LEFT)
            return inputs, None
        found = self.hooks.find_coefficients(
            weights,
            [model.operation for model in models],
            self.settings.strategy_options,
            shape=shape,
        )
        if found is None:
            return (*range(len(models)), *base), None
        pairs = [(i, c) for i, c in zip((*range(len(models)), *base), found, strict=True) if c != 0]
        if not pairs:
            raise ConfigError(_NOTHING_LEFT)
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
    """Workers, and elements in a slice: fewer where a strategy gets the slices of many models at once, to bound the memory."""
    options = settings.options
    workers = 1 if options.low_memory_mode or options.sequential_loading else len(os.sched_getaffinity(0))
    together = max((len(tensor.inputs) for tensor in tensors if tensor.action == "merge"), default=1)
    if options.low_memory_mode:
        return workers, FRUGAL_SLICE
    return workers, max(LEAST_SLICE, MOST_SLICE // max(1, together // 2) // OBSERVED * OBSERVED)


def _bytes_read(hooks: Hooks, checkpoints: Sequence[Checkpoint], tensor: TensorPlan) -> int:
    sizes = [checkpoints[i].tensors[tensor.renames.get(i, tensor.name)].bytes for i in tensor.inputs]
    if tensor.action == "copy":  # what several models have is compared first
        return sum(sizes) + sizes[0] * (len(sizes) > 1)
    measured = (tensor.action == "combine" and tensor.coefficients is None) or (
        tensor.action == "merge" and hooks.measures
    )
    return sum(sizes) * (2 if measured else 1)


def _memory(hooks: Hooks, settings: Settings, tensors: Sequence[TensorPlan], workers: int, slice_elements: int) -> int:
    """Expected peak: the process, and for each worker a raw slice and the converted ones that are held at once.

    A block a worker covers its window of output (a whole block where strategies see rows), and what the allocator keeps.
    """
    width = 8 if any(tensor.compute == "F64" for tensor in tensors) else 4
    held = ("merge", "combine") if hooks.observers(settings) else ("merge",)
    together = max((len(tensor.inputs) for tensor in tensors if tensor.action in held), default=0)
    most = slice_elements
    if hooks.strategy.traits.granularity == "whole":
        most = max([most, *(prod(tensor.shape) for tensor in tensors if tensor.action == "merge")])
    slices = 8 * most + width * most * (together + 2)
    measured = [len(t.inputs) for t in tensors if t.action == "combine" and t.coefficients is None]
    gram = 8 * MEASURED * max(measured, default=0)
    return PROCESS_MEMORY + workers * (BLOCK + slices + gram)


def _digest(hooks: Hooks, settings: Settings, checkpoints: Sequence[Checkpoint], layout: Layout) -> str:
    """Names everything that decides the output's bytes: config, inputs as they are, plugins, torch, and the layout."""
    options = settings.options
    hasher = blake3()
    decisive = {
        "strategy": settings.strategy,
        "models": [[m.path, repr(m.weight), m.name, m.operation] for m in settings.models],
        "base": settings.base_model,
        "options": [options.torch_dtype, options.seed, options.allow_nonfinite, repr(settings.strategy_options)],
        "arithmetic": [options.torch_compile, repr(options.device_map)],
        "taken": [options.missing_tensors, options.merge_embeddings, options.merge_lm_head],
        "adapters": repr(settings.peft),
        "observers": sorted(hooks.observers(settings)),  # what they find is in the manifest
        "options of plugins": [[name, repr(value)] for name, value in sorted(settings.plugin_options.items())],
        "plugins": [described(provider) for provider in hooks.providers],
        "strategy source": hooks.strategy.fingerprint,
        "torch": importlib_metadata.version("torch"),
        "inputs": [[_identity(checkpoint), checkpoint.content, checkpoint.donor.config] for checkpoint in checkpoints],
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
            tensor = placement.tensor
            yield f"{placement.offset} {tensor.dtype} {tensor.shape} {tensor.name!r}\n".encode()
        for offset, content in file.fixed:
            yield f"{offset} ".encode() + content
    for name, content in layout.documents.items():
        yield f"\n{name}\n".encode() + content
