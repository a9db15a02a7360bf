"""Merges of tensors in memory through the real config, plan and engine, without any file."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import evolve, frozen

from modelmerger.engine.arithmetic_digest import kernels
from modelmerger.engine.copied_tensors import check_exact_tensors, check_exact_tensors_within
from modelmerger.engine.merge import CPU, Merge
from modelmerger.engine.randomness import ElementNumbers
from modelmerger.engine.work.executing import execute
from modelmerger.engine.work.schedule import Schedule
from modelmerger.hooks.assembly import Hooks
from modelmerger.output.sinks.memory_sink import MemorySink
from modelmerger.planning.make_plan import named
from modelmerger.tensors import plan_tensors
from modelmerger.testing.in_order import Order, in_order
from modelmerger.testing.memory import MemoryCheckpoint, Tensors
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.composition import Composition
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings
from modelmerger.values.text import suggestion


@frozen(eq=False)
class Planned:
    """A merge that can be executed as often as one likes."""

    plan: MergePlan
    """What the merge makes."""
    settings: Settings
    """The argument `settings` of hooks."""
    hooks: Hooks
    """The plugins of the run."""
    checkpoints: Sequence[Checkpoint]
    """The models, then the base if there is one, as plugins view them."""
    composition: Composition | None = None
    """What the models are composed to; None where they are merged tensor by tensor."""

    def stage(
        self,
        order: Order | None = None,
        staged: MemorySink | None = None,
        workers: int | None = None,
        slice_elements: int | None = None,
    ) -> MemorySink:
        """Compares the tensors that are copied, and executes the plan.

        order: puts units of work that can be done at the same time in another order; what it leaves out is not made.
        staged: what an earlier call made, which is not made again. workers, slice_elements: None for those of the plan.
        Bytes that are never written stay 0xAA. Raises `ValueError` for a number below 1.
        """
        plan = evolve(
            self.plan,
            workers=_at_least_one("workers", workers, self.plan.workers),
            slice_elements=_at_least_one("slice_elements", slice_elements, self.plan.slice_elements),
        )
        read = self.checkpoints if self.composition is None else [self.composition.checkpoint]
        check_exact_tensors(plan, read)
        check_exact_tensors_within(self.checkpoints)
        staging = staged or _unwritten(plan)
        work = Schedule(Merge(plan, read, self.hooks, self.settings), staging, lambda _: None)
        execute(work, self.hooks, in_order(work, order) if order else work)
        return staging

    def random(self, tensor: str, model: int) -> torch.Tensor:
        """What `random(model)` returns for all of a tensor: float32, in its shape. model: its index in the config.

        Raises `KeyError` for a name that no merged tensor has.
        """
        named = {plan.name: plan for plan in self.plan.tensors}
        if tensor not in named:
            raise KeyError(f"no merged tensor is named {tensor!r}{suggestion(tensor, named)}")
        plan = named[tensor]
        models = range(len(self.settings.models))
        runs = [(0, plan.elements)]
        return ElementNumbers(self.settings.options.seed, tensor, runs, plan.shape, CPU, models)(model)

    def merge(self, **how: Any) -> dict[str, torch.Tensor]:
        """The merged tensors by name, in the shapes and dtypes that they are written in. how: as for `stage`."""
        return self.stage(**how).tensors


def _at_least_one(name: str, given: int | None, planned: int) -> int:
    if given is not None and given < 1:
        raise ValueError(f"{name} must be at least 1, got {given}")
    return planned if given is None else given


def _unwritten(plan: MergePlan) -> MemorySink:
    sink = MemorySink(plan.layout)
    for tensor in sink.tensors.values():
        if tensor.numel():
            tensor.view(-1).view(torch.uint8).fill_(0xAA)
    return sink


def plan_in_memory(
    strategy: Any,
    models: Sequence[Tensors | Checkpoint],
    base: Tensors | Checkpoint | None = None,
    weights: Sequence[Any] | None = None,
    model_options: Sequence[Mapping[str, Any]] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Planned:
    """The plan of merging models named `model_0`, `model_1` and so on, and a base named `base`.

    strategy: its name, or a module or object that is not installed. models, base: tensors by name, or checkpoints.
    weights, model_options: one a model. options: as in a config. Raises what planning a merge of that config raises.

    >>> plan_in_memory("weighted", [{"w": torch.ones(3)}, {"w": torch.zeros(3)}], weights=[0.25, 0.75]).plan.bytes_read
    24
    """
    found = [_checkpoint(f"model_{i}", model) for i, model in enumerate(models)]
    donor = None if base is None else _checkpoint("base", base)
    merge = plan_tensors(strategy, found, donor, weights, model_options, options)
    plan = named(merge.plan, merge.hooks, merge.models, merge.settings, merge.composition, kernels())
    return Planned(plan, merge.settings, merge.hooks, merge.models, merge.composition)


def _checkpoint(name: str, model: Tensors | Checkpoint) -> Checkpoint:
    return model if isinstance(model, Checkpoint) else MemoryCheckpoint(name, model)


def merge_in_memory(*arguments: Any, **keywords: Any) -> dict[str, torch.Tensor]:
    """`plan_in_memory(…).merge()`: the merged tensors by name, in the dtypes that would be written.

    >>> merge_in_memory("weighted", [{"w": torch.ones(2)}, {"w": torch.zeros(2)}], weights=[1.0, 3.0])
    {'w': tensor([0.2500, 0.2500])}
    """
    return plan_in_memory(*arguments, **keywords).merge()
