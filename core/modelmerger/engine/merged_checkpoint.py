"""A merge as a checkpoint: what its plan would write, made when it is read."""

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve

from modelmerger.config.opened_models import config_of_opened, strategy_of
from modelmerger.config.resolve import resolve
from modelmerger.engine.devices import slice_device
from modelmerger.hooks.assembly import Hooks
from modelmerger.hooks.registry import Registry
from modelmerger.inputs.files import InputFiles
from modelmerger.planning.configs import CONFIG, GENERATION, adjusted_configs
from modelmerger.planning.cost import bytes_read
from modelmerger.planning.inner_merges import plan_inner
from modelmerger.planning.opening import loading_context
from modelmerger.planning.slices import slices
from modelmerger.planning.viewed_models import view_models
from modelmerger.values.checkpoint import Checkpoint, TensorInfo
from modelmerger.values.composition import Composition
from modelmerger.values.errors import NumericError
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings
from modelmerger.values.tensor_plan import TensorPlan

if TYPE_CHECKING:
    from modelmerger.engine.on_demand import OnDemand


class MergedCheckpoint(Checkpoint):
    """A merge that is written nowhere: its tensors are made slice by slice, whenever they are read.

    Its numbers are those of the same merge published with `torch_dtype: float32` (float64 where the models have that),
    to the bit, so the one rounding to a narrower dtype is spared; with a `torch_dtype` of its own, they are rounded to
    that. They are the same wherever a reading begins and ends, and in every thread. A statistic that a tensor is made
    by is measured when the tensor is first read. Memory is bounded as that of a merge is: only a strategy that sees
    whole tensors holds one, in each thread.
    """

    def __init__(
        self,
        name: str,
        plan: MergePlan,
        checkpoints: Sequence[Checkpoint],
        hooks: Hooks,
        settings: Settings,
        composition: Composition | None = None,
    ) -> None:
        """name: its own, unique in the merge that it is a model of. The others: a merge that is planned."""
        self._read = checkpoints if composition is None else [composition.checkpoint]
        donor = checkpoints[plan.donor] if composition is None else composition.checkpoint
        self.name = name
        self.merge = plan
        self.sources = checkpoints
        configs = adjusted_configs(hooks, checkpoints, settings, plan, composition)
        beside = checkpoints[plan.donor].donor
        self.donor = evolve(beside, config=configs.get(CONFIG), generation=configs.get(GENERATION))
        self.files = tuple(dict.fromkeys(plan.inputs))
        self.tensors = {tensor.name: _info(tensor, donor, self._read, settings) for tensor in plan.tensors}
        self.aliases = {
            alias: tensor
            for alias, tensor in donor.aliases.items()
            if alias not in self.tensors and tensor in self.tensors
        }
        self._where = settings.where
        self._plan = plan
        self._index = {tensor.name: number for number, tensor in enumerate(plan.tensors)}
        self._bytes = [bytes_read(self._read, tensor) for tensor in plan.tensors]
        self._making = _Making(plan, self._read, hooks, settings)

    @classmethod
    def of(
        cls,
        name: str,
        strategy: Any,
        models: Sequence[Checkpoint],
        base: Checkpoint | None = None,
        weights: Sequence[Any] | None = None,
        model_options: Sequence[Mapping[str, Any]] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> "MergedCheckpoint":
        """A merge of opened models, which must stay open while it is read.

        models: each with another name, merged as a merge within a merge is: plugins view them that act there. weights,
        model_options: one a model. strategy: the name of an installed one, a module or an object of this process, or
        the path of a file (a `Path`), which is imported as `--plugin` does. options: as in the config of a merge within
        a merge, so without those of the whole run. Raises what planning a merge of that config raises.

        ```python
        from modelmerger import MergedCheckpoint

        def soup(checkpoints):
            return MergedCheckpoint.of("soup", "weighted", checkpoints, weights=[1.0] * len(checkpoints))
        ```
        """
        strategy, given = strategy_of(strategy)
        config = config_of_opened(strategy, models, base, weights, model_options, options)
        settings, hooks = resolve(config, Registry.installed().with_given(given), opened=True)
        settings = evolve(settings, where=name)
        opened = [*models, *([base] if base is not None else [])]
        checkpoints, _ = view_models(hooks, opened, settings, loading_context(hooks, settings, InputFiles()))
        plan, composition, _ = plan_inner(settings, hooks, checkpoints, ())
        return cls(name, plan, checkpoints, hooks, settings, composition)

    @property
    def content(self) -> str:
        """The digest of its plan."""
        return self._plan.digest

    @property
    def place(self) -> str:
        """Where the config has it."""
        return self._where

    def made_of(self, tensor: str) -> Sequence[tuple[Checkpoint, str]]:
        """The tensors of the models that it is made of."""
        if not self._plan.composed:
            return super().made_of(tensor)
        return self._read[0].made_of(tensor) or [(self._read[0], tensor)]

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Makes the elements. Raises what merging them raises."""
        if stop > start:
            try:
                self._making.read(self._index[tensor], start, stop, buffer)
            except NumericError as error:
                raise NumericError(*(p if p.where else evolve(p, where=self.place) for p in error.problems)) from error

    def bytes_to_read(self, tensor: str, start: int, stop: int) -> int:
        """The share of the elements in what is read to make the tensor, a measurement with it.

        It counts whenever the tensor is read, though the tensor is measured but once.
        """
        number = self._index[tensor]
        elements, total = self._plan.tensors[number].elements, self._bytes[number]
        return stop * total // elements - start * total // elements if elements else 0

    def prefetch(self, tensor: str, start: int, stop: int) -> None:
        """Passes on which elements of the models are needed."""
        plan = self._plan.tensors[self._index[tensor]]
        for part in slices(plan, start, stop, max(1, stop - start)):
            for i in plan.inputs:
                self._read[i].prefetch(plan.name_in(i), part.first, part.last)


class _Making:
    """The engine of a merge that is read, which all its names share. It comes, and torch with it, at the first read."""

    def __init__(self, plan: MergePlan, checkpoints: Sequence[Checkpoint], hooks: Hooks, settings: Settings) -> None:
        self._planned = plan, checkpoints, hooks, settings
        self._lock = threading.Lock()
        self._engine: OnDemand | None = None

    def read(self, number: int, start: int, stop: int, buffer: memoryview) -> None:
        (self._engine or self._started()).read(number, start, stop, buffer)

    def _started(self) -> "OnDemand":
        from modelmerger.engine.merge import Merge
        from modelmerger.engine.on_demand import OnDemand

        with self._lock:
            if self._engine is None:
                plan, checkpoints, hooks, settings = self._planned
                device = slice_device(settings.options.device_map)
                self._engine = OnDemand(Merge(plan, checkpoints, hooks, settings, device))
            return self._engine


def _info(tensor: TensorPlan, donor: Checkpoint, read: Sequence[Checkpoint], settings: Settings) -> TensorInfo:
    """What the tensor is, with the dtype that it would have been published in, had nothing asked for a wider one."""
    source = donor.tensors.get(tensor.name) or read[tensor.inputs[0]].tensors[tensor.name_in(tensor.inputs[0])]
    published = settings.options.written(source.written)
    # a tensor that keeps its bits, such as a quantised one, is of no other dtype
    return TensorInfo(tensor.dtype, tensor.shape, "" if published == tensor.dtype else published)
