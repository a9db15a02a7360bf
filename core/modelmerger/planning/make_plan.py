"""Makes the plan: what becomes of each tensor, where it will lie, what that costs, and the digest that names it."""

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from attrs import evolve

from modelmerger.hooks.assembly import Hooks
from modelmerger.planning.cost import bytes_read, peak_memory, slice_elements
from modelmerger.planning.digest import deciding_parts, plan_digest
from modelmerger.planning.layout_check import check_layout
from modelmerger.planning.tensor_plans import plan_merged_tensors, plan_read_tensors
from modelmerger.values.checkpoint import Checkpoint, TensorInfo
from modelmerger.values.layout import Layout, OutputTensor
from modelmerger.values.plan import MergePlan, PlannedModel, TensorPlan
from modelmerger.values.settings import Settings, shard_bytes
from modelmerger.values.updates import WHOLE_MODEL, MergedUpdates

_AS_THE_DONOR: Mapping[str, str] = MappingProxyType({})


def make_plan(
    hooks: Hooks,
    checkpoints: Sequence[Checkpoint],
    settings: Settings,
    revisions: Sequence[str] = (),
    updates: MergedUpdates | None = None,
) -> MergePlan:
    """The plan of merging these checkpoints, which are the models in the order of the config, then the base if any.

    revisions: the commit of each checkpoint, empty where it has none; left out if no checkpoint has one. updates: the
    merged updates, where updates are merged. Raises `ModelCompatibilityError` with every tensor that does not fit,
    `ConfigError` for weights that make no sense.
    """
    return named(make_unnamed_plan(hooks, checkpoints, settings, revisions, updates), hooks, checkpoints, settings)


def named(plan: MergePlan, hooks: Hooks, checkpoints: Sequence[Checkpoint], settings: Settings) -> MergePlan:
    """The plan with its digest."""
    decides = deciding_parts(hooks, settings, checkpoints, plan.layout)
    return evolve(plan, digest=plan_digest(decides), decides=decides)


def make_unnamed_plan(
    hooks: Hooks,
    checkpoints: Sequence[Checkpoint],
    settings: Settings,
    revisions: Sequence[str] = (),
    updates: MergedUpdates | None = None,
    dtypes: Mapping[str, str] = _AS_THE_DONOR,
) -> MergePlan:
    """`make_plan` without the digest, for which every number of a model in memory would have to be read.

    dtypes: in which floating tensors are written, by name ("BF16"); those without one as the settings say.
    """
    if updates is None:
        tensors, notes = plan_merged_tensors(hooks, checkpoints, settings, dtypes)
        read, memory = checkpoints, 0
    else:
        tensors, notes = plan_read_tensors(updates), list(updates.notes)
        read, memory = [updates.checkpoint], updates.memory
    layout = _layout(hooks, settings, tensors, updates)
    workers, elements = settings.options.workers, slice_elements(settings.options, tensors)
    return MergePlan(
        strategy=settings.strategy,
        donor=settings.donor,
        models=_planned_models(checkpoints, settings, revisions),
        inputs=[file for checkpoint in checkpoints for file in checkpoint.files],
        tensors=tensors,
        layout=layout,
        workers=workers,
        slice_elements=elements,
        bytes_read=sum(bytes_read(hooks, read, tensor) for tensor in tensors),
        bytes_written=sum(file.size for file in layout.files),
        memory=peak_memory(hooks, settings, tensors, elements) + workers * memory,
        digest="",
        notes=notes,
        updates=updates is not None,
        writes=updates.writes if updates else WHOLE_MODEL,
    )


def _layout(hooks: Hooks, settings: Settings, tensors: Sequence[TensorPlan], updates: MergedUpdates | None) -> Layout:
    outputs = [OutputTensor(t.name, t.dtype, t.shape, TensorInfo(t.dtype, t.shape).bytes) for t in tensors]
    size = shard_bytes(settings.options.max_shard_size)
    if updates is None:
        layout = hooks.output.save_model(outputs, size)
    else:
        layout = hooks.output.save_model(outputs, size if updates.sharded else sys.maxsize, updates.stem)
    check_layout(layout, outputs)
    return layout if updates is None else evolve(layout, documents={**layout.documents, **updates.documents})


def _planned_models(
    checkpoints: Sequence[Checkpoint], settings: Settings, revisions: Sequence[str]
) -> list[PlannedModel]:
    commits = revisions or [""] * len(checkpoints)
    models = [
        PlannedModel(model.name, model.path, model.weight, told, commit)
        for model, told, commit in zip(settings.models, settings.model_options, commits, strict=False)
    ]
    if settings.base_model is not None:
        models.append(PlannedModel(checkpoints[-1].name, settings.base_model, None, None, commits[-1]))
    return models
