"""Makes the plan: what becomes of each tensor, where it will lie, what that costs, and the digest that names it."""

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from attrs import evolve

from modelmerger.hooks.assembly import Hooks
from modelmerger.inputs.available_memory import available_memory
from modelmerger.inputs.direct.ways import way_of, writes_past_cache
from modelmerger.output.manifest import FILE, REPORT
from modelmerger.planning.apart.folders import lay_out
from modelmerger.planning.cost import (
    bytes_compared,
    bytes_read,
    kept_inputs,
    memory_parts,
    most_kept,
    moving_parts,
    slice_elements,
    worker_memory,
)
from modelmerger.planning.digest import deciding_parts, plan_digest
from modelmerger.planning.tensor_plans import plan_composed_tensors, plan_merged_tensors
from modelmerger.values.checkpoint import Checkpoint, TensorInfo, merges_among
from modelmerger.values.composition import Composition
from modelmerger.values.file_identity import FileIdentity
from modelmerger.values.layout import Layout, OutputTensor
from modelmerger.values.options.checks import size_in_bytes
from modelmerger.values.plan import WHOLE_MODEL, MergePlan, PlannedModel
from modelmerger.values.settings import Settings
from modelmerger.values.tensor_plan import TensorPlan

NOT_WRITTEN = Layout("", ())
"""The layout of a merge within another one."""

_AS_THE_DONOR: Mapping[str, str] = MappingProxyType({})
_NO_KERNELS: Mapping[str, str] = MappingProxyType({})


def make_plan(
    hooks: Hooks,
    checkpoints: Sequence[Checkpoint],
    settings: Settings,
    revisions: Sequence[str] = (),
    composition: Composition | None = None,
    dtypes: Mapping[str, str] = _AS_THE_DONOR,
) -> MergePlan:
    """The plan of merging these checkpoints, which are the models in the order of the config, then the base if any.

    revisions: the commit of each checkpoint, empty where it has none; left out if no checkpoint has one.
    composition: what the models are composed to, if they are. dtypes: in which floating tensors are written, by name
    ("BF16"); those without one as the settings say. The plan has no digest yet: see `named`. Raises
    `ModelCompatibilityError` with every tensor that does not fit, `ConfigError` for weights that make no sense.
    """
    if composition is None:
        tensors, notes = plan_merged_tensors(hooks, checkpoints, settings, dtypes)
        read, memory = checkpoints, 0
    else:
        tensors, notes = plan_composed_tensors(composition, settings, dtypes), list(composition.notes)
        read, memory = [composition.checkpoint], composition.memory
    layout = NOT_WRITTEN if settings.where else _layout(hooks, settings, checkpoints, tensors, composition)
    inner = [one.merge for one in merges_among(checkpoints) if one.merge is not None]
    workers, elements = settings.options.workers, slice_elements(settings.options, tensors)
    held = worker_memory(hooks, settings, tensors, elements)
    inputs, written = _inputs(checkpoints, composition), sum(file.size for file in layout.files)
    io, most = settings.options.io, most_kept(settings.options, tensors)
    ways = {} if settings.where else {file.path: way_of(file, io) for file in inputs}
    direct = written > 0 and writes_past_cache(io, sum(file.size for file in inputs), written, available_memory())
    kept = kept_inputs(ways, read, tensors, workers, most)
    moving = moving_parts(ways, tensors, workers, kept.most, direct=direct)
    parts = memory_parts(workers, held + memory + sum(one.worker_memory for one in inner), moving)
    return MergePlan(
        strategy=settings.strategy,
        donor=settings.donor,
        models=_planned_models(checkpoints, settings, revisions),
        inputs=inputs,
        tensors=tensors,
        layout=layout,
        workers=workers,
        slice_elements=elements,
        bytes_read=sum(bytes_read(read, tensor) for tensor in tensors)
        + bytes_compared(read, tensors)
        + sum(one.bytes_compared for one in inner),
        bytes_written=written,
        memory=sum(parts.values()),
        memory_parts=parts,
        digest="",
        notes=notes,
        composed=composition is not None,
        updates=composition is not None and composition.updates,
        adds_up=composition is not None and composition.adds_up,
        writes=composition.writes if composition else WHOLE_MODEL,
        options=settings.given.get("options") or {},
        worker_memory=held,
        bytes_compared=bytes_compared(read, tensors),
        bytes_reused=kept.reused,
        ways=ways,
        direct=direct,
    )


def named(
    plan: MergePlan,
    hooks: Hooks,
    checkpoints: Sequence[Checkpoint],
    settings: Settings,
    composition: Composition | None = None,
    kernels: Mapping[str, str] = _NO_KERNELS,
) -> MergePlan:
    """The plan with its digest, for which every number of a model in memory is read.

    kernels: what the machine's arithmetic comes to, as a part of the digest. A merge within another one has none of its
    own: that of the outermost stands for all.
    """
    decides = {**deciding_parts(hooks, settings, checkpoints, plan.layout, composition), **kernels}
    return evolve(plan, digest=plan_digest(decides), decides=decides)


def _inputs(checkpoints: Sequence[Checkpoint], composition: Composition | None) -> list[FileIdentity]:
    """Every file that is read; those that a composition alone reads come last."""
    files = [file for checkpoint in checkpoints for file in checkpoint.files]
    own = composition.checkpoint.files if composition else ()
    return [*files, *(file for file in own if file not in files)]


def _layout(
    hooks: Hooks,
    settings: Settings,
    checkpoints: Sequence[Checkpoint],
    tensors: Sequence[TensorPlan],
    composition: Composition | None,
) -> Layout:
    outputs = [OutputTensor(t.name, t.dtype, t.shape, TensorInfo(t.dtype, t.shape).bytes) for t in tensors]
    size = size_in_bytes(settings.options.max_shard_size)
    names, folders = [tensor.name for tensor in tensors], dict[str, str]()
    if composition is None or composition.writes == WHOLE_MODEL:
        folders = hooks.output.place_tensors(names, checkpoints, settings)
    if composition is None:
        return lay_out(outputs, folders, lambda some, one: hooks.output.save_model(some, sys.maxsize if one else size))
    size, stem = size if composition.sharded else sys.maxsize, composition.stem
    layout = lay_out(
        outputs, folders, lambda some, one: hooks.output.save_model(some, sys.maxsize if one else size, stem)
    )
    for name in (*(file.name for file in layout.files), *layout.documents, FILE, REPORT):
        if name in composition.documents:
            raise hooks.models.taken_name_error(name)
    return evolve(layout, documents={**layout.documents, **composition.documents})


def _planned_models(
    checkpoints: Sequence[Checkpoint], settings: Settings, revisions: Sequence[str]
) -> list[PlannedModel]:
    commits = revisions or [""] * len(checkpoints)
    models = [
        PlannedModel(model.name, model.path, model.weight, told, commit, checkpoint.merge)
        for model, told, commit, checkpoint in zip(
            settings.models, settings.model_options, commits, checkpoints, strict=False
        )
    ]
    if settings.base_model is not None:
        base = checkpoints[-1]
        models.append(PlannedModel(base.name, settings.base_model, None, None, commits[-1], base.merge))
    return models
