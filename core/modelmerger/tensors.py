"""Merges of tensors in memory, for other programs: names and tensors in, names and tensors out, and no files."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from modelmerger.config.resolve import resolve
from modelmerger.engine.merged_checkpoint import MergedCheckpoint
from modelmerger.given_tensors import check_targets, config_of, listed, made_sink
from modelmerger.hooks.assembly import Hooks
from modelmerger.inputs.tensor_bytes import where
from modelmerger.output.sink import Sink
from modelmerger.planning.composition import compose, finish_composition
from modelmerger.planning.make_plan import make_plan
from modelmerger.planning.opening import open_models
from modelmerger.planning.ties.tied_names import tied_names
from modelmerger.planning.views import CheckpointView
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.composition import Composition
from modelmerger.values.layout import Layout
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from modelmerger.engine.merge import Merge

_NONE: Mapping[str, str] = MappingProxyType({})
log = logging.getLogger("modelmerger")


def merge_tensors(
    strategy: str,
    models: "Iterable[Mapping[str, Tensor] | Module | Checkpoint]",
    base: "Mapping[str, Tensor] | Module | Checkpoint | None" = None,
    *,
    weights: Iterable[Any] | None = None,
    model_options: Sequence[Mapping[str, Any]] | None = None,
    options: Mapping[str, Any] | None = None,
    out: "Mapping[str, Tensor] | Module | None" = None,
    sink: Callable[[Layout], Sink] | None = None,
) -> "dict[str, Tensor]":
    """The merged tensors by name: what a merge of the same models writes, bit for bit. Nothing is read or written.

    strategy: the name of an installed one. models, base: tensors by name, which are not changed; or modules, or
    checkpoints. weights: one a model, each as in a config; a one-dimensional tensor or array will do. model_options:
    one mapping a model, of what the strategy wants to know of it. options: as in a config.

    The result is on the CPU, in the dtypes of the base, or of the first model without one, or as `torch_dtype` says.
    With `out`, a module or a mapping of tensors, the merged tensors are put into those of the same names, in place and
    each in its own dtype, to which they are rounded once. That may be one of the models. Where an error ends the merge,
    some of them are new and the others are old. With `sink`, a function that makes a sink of a layout, the result is
    where that sink puts it, and what is returned is empty.

    Raises `ConfigError`, `InputError` (a tensor on the meta device), `ModelCompatibilityError` (a tensor that a model
    lacks), `NumericError` (a NaN), `PluginError`.

    >>> chat, formal = {"w": torch.ones(2)}, {"w": torch.zeros(2)}
    >>> merge_tensors("weighted", [chat, formal], weights=[1.0, 3.0])
    {'w': tensor([0.2500, 0.2500])}
    """
    from modelmerger.engine.overwriting import check_overwriting
    from modelmerger.engine.work.executing import carry_out
    from modelmerger.inputs.torch_dtypes import dtype_from_torch
    from modelmerger.output.sinks.memory_sink import MemorySink
    from modelmerger.output.sinks.module_sink import ModuleSink, targets_of

    check_targets(out, sink, options)
    models = listed(models)
    targets = targets_of(out) if out is not None else {}
    dtypes = {name: dtype_from_torch(target.dtype) for name, target in targets.items() if target.is_floating_point()}
    ties = _ties([*models, *([] if base is None else [base]), *([] if out is None else [targets])])
    models, base = [_without(ties, model) for model in models], _without(ties, base)
    planned = plan_tensors(strategy, models, base, weights, model_options, options, dtypes)
    plan = planned.plan
    for note in plan.notes:
        log.log(logging.WARNING if note.severity == "warning" else logging.INFO, "%s", note)
    merge = planned.checked()
    if sink is not None:
        carry_out(merge, made_sink(sink, plan.layout), _no_progress)
        return {}
    ties = _further_names(plan, {**ties, **planned.models[plan.donor].aliases})
    kept: MemorySink | ModuleSink
    if out is None:
        kept = MemorySink(plan.layout)
    else:
        ties = {name: first for name, first in ties.items() if name in targets}
        kept = ModuleSink(plan.layout, _without(ties, targets))
        written = {tensor.name: targets[tensor.name] for tensor in plan.tensors}
        names, sources = [model.name for model in planned.models], [_in_memory(model) for model in (*models, base)]
        check_overwriting(plan, names, sources, written, direct=planned.direct)
    carry_out(merge, kept, _no_progress)
    merged = {tensor.name: kept.tensors[tensor.name] for tensor in plan.tensors}
    return merged | {name: _tied(merged[first], targets.get(name)) for name, first in ties.items()}


@frozen(eq=False)
class PlannedTensors:
    """A merge of tensors that can be carried out."""

    plan: MergePlan
    """What it makes."""
    models: Sequence[Checkpoint]
    """What is merged, as it is seen, then the base if there is one."""
    hooks: Hooks
    """The plugins of the run."""
    settings: Settings
    """Those of the merge."""
    composition: Composition | None
    """What the models are composed to; None where they are merged tensor by tensor."""

    @property
    def direct(self) -> bool:
        """Whether each tensor is made of what models have under the names that the plan says, and of nothing else."""
        return self.composition is None and not any(isinstance(model, CheckpointView) for model in self.models)

    def checked(self) -> "Merge":
        """The merge, once tensors that are copied are known to be equal. Raises `ModelCompatibilityError`."""
        from modelmerger.engine.copied_tensors import check_exact_tensors, check_exact_tensors_within
        from modelmerger.engine.devices import slice_device
        from modelmerger.engine.merge import Merge

        read = self.models if self.composition is None else [self.composition.checkpoint]
        compared = check_exact_tensors(self.plan, read) + check_exact_tensors_within(self.models)
        for note in compared.notes:
            log.info("%s", note)
        return Merge(self.plan, read, self.hooks, self.settings, slice_device(self.settings.options.device_map))


def plan_tensors(
    strategy: Any,
    models: "Sequence[Mapping[str, Tensor] | Module | Checkpoint]",
    base: "Mapping[str, Tensor] | Module | Checkpoint | None" = None,
    weights: Iterable[Any] | None = None,
    model_options: Sequence[Mapping[str, Any]] | None = None,
    options: Mapping[str, Any] | None = None,
    dtypes: Mapping[str, str] = _NONE,
) -> PlannedTensors:
    """The planned merge of models named `model_0`, `model_1` and so on, and a base named `base`.

    Arguments are those of `merge_tensors`. dtypes: in which floating tensors are written, by name; those without one as
    `torch_dtype` says. Raises what planning a merge of that config raises.
    """
    settings, hooks = resolve(config_of(strategy, models, base, weights, model_options, options))
    settings = evolve(settings, given_names=True)
    with open_models(settings, hooks, merged=MergedCheckpoint) as opened:
        models, settings = opened.checkpoints, opened.settings
        composition = finish_composition(hooks, compose(hooks, models, settings))
        plan = make_plan(hooks, models, settings, composition=composition, dtypes=dtypes)
        return PlannedTensors(plan, models, hooks, settings, composition)


def _ties(models: Sequence[Any]) -> dict[str, str]:
    """Names of one tensor in all of these, where all are mappings: further name → first name."""
    return tied_names(models) if all(_is_mapping(model) for model in models) else {}


def _is_mapping(model: Any) -> bool:
    """Whether this is a mapping of tensors in memory, and not one that reads them."""
    return isinstance(model, Mapping) and not isinstance(model, Checkpoint)


def _further_names(plan: MergePlan, ties: Mapping[str, str]) -> dict[str, str]:
    """Of names that stand for a tensor of another name, those that are not merged themselves."""
    names = {tensor.name for tensor in plan.tensors}
    return {name: first for name, first in ties.items() if name not in names and first in names}


def _without(ties: Mapping[str, str], model: Any) -> Any:
    """The model without further names of its tensors."""
    return {name: tensor for name, tensor in model.items() if name not in ties} if ties and model is not None else model


def _in_memory(model: Any) -> "Mapping[str, Tensor]":
    """The tensors of a model, by the names of its state dict; none where it is a checkpoint."""
    from modelmerger.output.sinks.module_sink import targets_of

    return {} if model is None or isinstance(model, Checkpoint) else targets_of(model)


def _tied(merged: "Tensor", target: "Tensor | None") -> "Tensor":
    """A merged tensor under a further name: itself, or a target that may have memory of its own."""
    return merged if target is None or where(target) == where(merged) else target.copy_(merged)


def _no_progress(_: int) -> None:
    """Nobody watches."""
