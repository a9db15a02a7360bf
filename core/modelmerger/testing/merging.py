"""Merges of tensors in memory through the real config, plan and engine, without any file."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from attrs import evolve, frozen

from modelmerger.config.resolve import resolve
from modelmerger.engine.arithmetic import bytes_of
from modelmerger.engine.copied_tensors import check_exact_tensors, check_exact_tensors_within
from modelmerger.engine.merge import CPU, Merge
from modelmerger.engine.randomness import ElementNumbers
from modelmerger.engine.work.executing import execute
from modelmerger.engine.work.schedule import Schedule
from modelmerger.hooks.assembly import Hooks
from modelmerger.inputs.torch_dtypes import torch_dtype
from modelmerger.planning.composition import compose, finish_composition
from modelmerger.planning.make_plan import make_plan
from modelmerger.testing.in_order import Order, in_order
from modelmerger.testing.memory import MemoryCheckpoint, MemoryStaging, Tensors
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.composition import Composition
from modelmerger.values.layout import Placement
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings


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
        staged: MemoryStaging | None = None,
        workers: int | None = None,
        slice_elements: int | None = None,
    ) -> MemoryStaging:
        """Compares the tensors that are copied, and executes the plan.

        order: puts units of work that can be done at the same time in another order; what it leaves out is not made.
        staged: what an earlier call made, which is not made again. workers, slice_elements: None for those of the plan.
        """
        plan = evolve(
            self.plan,
            workers=workers or self.plan.workers,
            slice_elements=slice_elements or self.plan.slice_elements,
        )
        read = self.checkpoints if self.composition is None else [self.composition.checkpoint]
        check_exact_tensors(plan, read)
        check_exact_tensors_within(self.checkpoints)
        staging = staged or MemoryStaging(plan)
        work = Schedule(Merge(plan, read, self.hooks, self.settings), staging, lambda _: None)
        execute(work, self.hooks, in_order(work, order) if order else work)
        return staging

    def random(self, tensor: str, model: int) -> torch.Tensor:
        """What `random(model)` returns for all of a tensor: float32, in its shape. model: its index in the config."""
        (plan,) = [plan_in_memory for plan_in_memory in self.plan.tensors if plan_in_memory.name == tensor]
        return ElementNumbers(self.settings.options.seed, tensor, 0, plan.elements, plan.shape, CPU)(model)

    def merge(self, **how: Any) -> dict[str, torch.Tensor]:
        """The merged tensors by name, in the shapes and dtypes that they are written in. how: as for `stage`."""
        staging = self.stage(**how)
        return {
            placement.tensor.name: _tensor_in(content, placement)
            for content, file in zip(staging.files, self.plan.layout.files, strict=True)
            for placement in file.placements
        }


def _tensor_in(content: bytearray, placement: Placement) -> torch.Tensor:
    tensor = torch.empty(placement.tensor.shape, dtype=torch_dtype(placement.tensor.dtype))
    bytes_of(tensor.view(-1))[:] = content[placement.offset : placement.offset + placement.tensor.bytes]
    return tensor


def plan_in_memory(
    strategy: str,
    models: Sequence[Tensors | Checkpoint],
    base: Tensors | Checkpoint | None = None,
    weights: Sequence[Any] | None = None,
    model_options: Sequence[Mapping[str, Any]] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Planned:
    """The plan of merging models named `model_0`, `model_1` and so on, and a base named `base`.

    models, base: tensors by name, or checkpoints. weights, model_options: one a model. options, strategy: as in a
    config. Raises what planning a merge of that config raises.

    >>> plan_in_memory("weighted", [{"w": torch.ones(3)}, {"w": torch.zeros(3)}], weights=[0.25, 0.75]).plan.bytes_read
    24
    """
    entries: list[dict[str, Any]] = [{"path": f"model_{i}", "name": f"model_{i}"} for i in range(len(models))]
    for entry, weight in zip(entries, weights or (), strict=bool(weights)):
        entry["weight"] = weight
    for entry, told in zip(entries, model_options or (), strict=bool(model_options)):
        entry.update(told)
    config = {"strategy": strategy, "models": entries, "options": options or {}}
    config |= {"base_model": "base"} if base is not None else {}
    settings, hooks = resolve(config)
    named = [(f"model_{i}", model) for i, model in enumerate(models)]
    if base is not None:
        named.append(("base", base))
    checkpoints = [m if isinstance(m, Checkpoint) else MemoryCheckpoint(name, m) for name, m in named]
    views = hooks.models.view_models(checkpoints, settings)
    composition = finish_composition(hooks, compose(hooks, views, settings))
    plan = make_plan(hooks, views, settings, composition=composition)
    return Planned(plan, settings, hooks, views, composition)


def merge_in_memory(*arguments: Any, **keywords: Any) -> dict[str, torch.Tensor]:
    """`plan_in_memory(…).merge()`: the merged tensors by name, in the dtypes that would be written.

    >>> merge_in_memory("weighted", [{"w": torch.ones(2)}, {"w": torch.zeros(2)}], weights=[1.0, 3.0])
    {'w': tensor([0.2500, 0.2500])}
    """
    return plan_in_memory(*arguments, **keywords).merge()
