"""For tests of plugins: merges of tensors in memory through the real config, plan and engine, without any file."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from attrs import evolve, frozen

from modelmerger.config.resolve import resolve
from modelmerger.engine.arithmetic import bytes_of
from modelmerger.engine.blocks import MergeWork
from modelmerger.engine.merge import CPU, Merge
from modelmerger.engine.randomness import ElementNumbers
from modelmerger.hooks.assembly import Hooks
from modelmerger.hooks.registry import Registry
from modelmerger.inputs.torch_dtypes import dtype_from_torch, torch_dtype
from modelmerger.output.journal import BlockRecord
from modelmerger.planning.make_plan import make_plan
from modelmerger.values.checkpoint import Checkpoint, Donor, TensorInfo
from modelmerger.values.layout import Placement
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings
from modelmerger.values.units import Unit

Tensors = Mapping[str, torch.Tensor]
"""Tensors by name."""
Order = Callable[[Sequence[Unit]], Sequence[Unit]]
"""Puts units of work in another order."""
_NOTHING: Mapping[str, str] = MappingProxyType({})


@cache
def _installed(_path: tuple[str, ...]) -> Registry:
    """What is installed on this import path, read once."""
    return Registry.installed()


class MemoryCheckpoint(Checkpoint):
    """A model in memory that remembers what was read of it."""

    def __init__(
        self,
        name: str,
        tensors: Tensors,
        config: Mapping[str, Any] | None = None,
        aliases: Mapping[str, str] = _NOTHING,
    ) -> None:
        self.name = name
        self.tensors = {
            key: TensorInfo(dtype_from_torch(value.dtype), tuple(value.shape)) for key, value in tensors.items()
        }
        self.aliases = aliases
        self.files = ()
        self.donor = Donor(None, config)
        self.reads: list[tuple[str, int, int]] = []
        """What was read, in order: tensor, first element, and the element behind the last."""
        self._bytes = {
            key: value.contiguous().view(-1).view(torch.uint8).numpy().data for key, value in tensors.items()
        }

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Fills the buffer, and remembers the read."""
        offset, length = self.tensors[tensor].span(start, stop)
        buffer[:length] = self._bytes[tensor][offset : offset + length]
        self.reads.append((tensor, start, stop))

    @property
    def bytes_read(self) -> int:
        """How many bytes were read; those that were read twice count twice."""
        return sum(self.tensors[tensor].span(start, stop)[1] for tensor, start, stop in self.reads)


class MemoryStaging:
    """Keeps in memory what the engine writes. Bytes that are never written stay 0xAA."""

    tree = Path("memory")

    def __init__(self, plan: MergePlan) -> None:
        self.names = [file.name for file in plan.layout.files]
        self.files = [bytearray(b"\xaa" * file.size) for file in plan.layout.files]
        self.records: dict[tuple[int, int], BlockRecord] = {}
        self.bytes_written = 0

    def open_for_writing(self, _: int) -> int:
        """A descriptor of the null device."""
        return os.open(os.devnull, os.O_WRONLY)

    def write(self, _: int, file: int, content: memoryview, offset: int) -> None:
        """Keeps the content."""
        self.files[file][offset : offset + len(content)] = content
        self.bytes_written += len(content)

    def record(self, _: int, file: int, block: int, record: BlockRecord, offset: int, length: int) -> None:  # noqa: ARG002 (the engine's signature)
        """Keeps the record of a finished block."""
        self.records[file, block] = record


@frozen(eq=False)
class Planned:
    """A merge that can be executed as often as one likes."""

    plan: MergePlan
    """What the merge makes."""
    settings: Settings
    """Those of the merge."""
    hooks: Hooks
    """The plugins of the run."""
    checkpoints: Sequence[Checkpoint]
    """The models, then the base if there is one."""

    def stage(self, order: Order = list, staged: MemoryStaging | None = None, **changed: Any) -> MemoryStaging:
        """Executes the merge.

        order: puts the units of work in another order. staged: blocks that are made already. changed: fields of the
        plan, such as `workers` or `slice_elements`.
        """
        plan = evolve(self.plan, **changed)
        staging = staged or MemoryStaging(plan)
        merge = Merge(plan, self.checkpoints, self.hooks, self.settings)
        work = MergeWork(merge, staging, lambda _: None)  # type: ignore[arg-type]  # a stand-in
        work.units = list(order(work.units))
        self.hooks.output.run_slices(work)
        return staging

    def random(self, tensor: str, model: int) -> torch.Tensor:
        """The random numbers that belong to all elements of a tensor, for the model of that index: float32, in its shape."""
        (plan,) = [planned for planned in self.plan.tensors if planned.name == tensor]
        numbers = ElementNumbers(self.settings.options.seed, tensor, 0, plan.elements, plan.shape, CPU)
        return numbers(model)

    def merge(self, **changed: Any) -> dict[str, torch.Tensor]:
        """The merged tensors of all files, by name. Arguments: as for `stage`."""
        staging = self.stage(**changed)
        return {
            placement.tensor.name: tensor_in(content, placement)
            for content, file in zip(staging.files, self.plan.layout.files, strict=True)
            for placement in file.placements
        }


def tensor_in(content: bytearray, placement: Placement) -> torch.Tensor:
    """The tensor at its place in the content of a file."""
    tensor = torch.empty(placement.tensor.shape, dtype=torch_dtype(placement.tensor.dtype))
    bytes_of(tensor.view(-1))[:] = content[placement.offset : placement.offset + placement.tensor.bytes]
    return tensor


def planned(
    strategy: str,
    models: Sequence[Tensors | Checkpoint],
    base: Tensors | Checkpoint | None = None,
    weights: Sequence[Any] | None = None,
    model_options: Sequence[Mapping[str, Any]] | None = None,
    options: Mapping[str, Any] | None = None,
    registry: Registry | None = None,
) -> Planned:
    """The plan of merging models named `model_0`, `model_1` and so on, and a base named `base`.

    models, base: tensors by name, or checkpoints. weights, model_options: one a model. options, strategy: as in a
    config. registry: the plugins; None: those that are installed.
    """
    entries: list[dict[str, Any]] = [{"path": f"model_{i}", "name": f"model_{i}"} for i in range(len(models))]
    for entry, weight in zip(entries, weights or (), strict=bool(weights)):
        entry["weight"] = weight
    for entry, told in zip(entries, model_options or (), strict=bool(model_options)):
        entry.update(told)
    config = {"strategy": strategy, "models": entries, "options": options or {}}
    config |= {"base_model": "base"} if base is not None else {}
    settings, hooks = resolve(config, registry or _installed(tuple(sys.path)))
    named = [(f"model_{i}", model) for i, model in enumerate(models)]
    if base is not None:
        named.append(("base", base))
    checkpoints = [m if isinstance(m, Checkpoint) else MemoryCheckpoint(name, m) for name, m in named]
    return Planned(make_plan(hooks, checkpoints, settings), settings, hooks, checkpoints)


def merge_in_memory(*arguments: Any, **keywords: Any) -> dict[str, torch.Tensor]:
    """The merged tensors by name. Arguments: as for `planned`."""
    return planned(*arguments, **keywords).merge()
