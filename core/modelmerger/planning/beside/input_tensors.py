"""Takes stock of the tensors of every source: which are merged, which are carried over, and which are left behind."""

from collections.abc import Iterator, Mapping, Sequence

from modelmerger.planning.apart.joined_view import JoinedView
from modelmerger.planning.views import CheckpointView
from modelmerger.values.checkpoint import Checkpoint, models_behind
from modelmerger.values.layout import InputTensors
from modelmerger.values.plan import MergePlan
from modelmerger.values.tensor_plan import TensorPlan

MOST_LISTED = 50
"""Tensors of a model that are named; of further ones, how many there are."""
MERGING = "combine", "merge"
_Key = tuple[int, str]


def tensors_taken(
    plan: MergePlan, sources: Sequence[Checkpoint], checkpoints: Sequence[Checkpoint]
) -> dict[str, InputTensors]:
    """What becomes of the tensors of all models that are merged, in merges within this one too; by the model's name.

    plan: of the merge. sources: what its tensors are read from. checkpoints: its models, as they are viewed. Empty for
    a composition that does not say what its tensors are made of, as that of adapters.
    """
    walk = _Walk()
    for tensor in plan.tensors:
        walk.follow(tensor, sources, merging=False)
    found: dict[str, InputTensors] = {}
    reached = False
    for model in models_behind(checkpoints):
        views = list(_views(model))
        raw = views[-1].checkpoint if views else model
        for view in views:
            walk.add_tied(view)
        fates = {name: walk.merged.get((id(raw), name)) for name in raw.tensors} | walk.fates_beside(views)
        reached = reached or any(fate is not None for fate in fates.values())
        found[_free(model.name, found)] = _counted(fates)
    return found if reached or not plan.composed else {}


def _views(model: Checkpoint) -> Iterator[CheckpointView]:
    """The views of a model, outermost first."""
    while isinstance(model, CheckpointView):
        yield model
        model = model.checkpoint


def _free(name: str, taken: Mapping[str, InputTensors]) -> str:
    """The name, or, where a model of another merge has it, the name with a number."""
    number = 2
    while name in taken:
        name, number = f"{name.removesuffix(f' ({number - 1})')} ({number})", number + 1
    return name


def _counted(fates: Mapping[str, bool | None]) -> InputTensors:
    copied = sorted(name for name, merged in fates.items() if merged is False)
    left = sorted(name for name, merged in fates.items() if merged is None)
    return InputTensors(len(fates) - len(copied) - len(left), len(copied), len(left), _few(copied), _few(left))


def _few(names: Sequence[str]) -> tuple[str, ...]:
    more = len(names) - MOST_LISTED
    return (*names[:MOST_LISTED], *([f"and {more:,} more"] if more > 0 else []))


class _Walk:
    """Goes from the tensors of the output to those of the files."""

    def __init__(self) -> None:
        self.merged: dict[_Key, bool] = {}
        """Each tensor that is reached → whether it is merged, and not only carried over."""
        self._planned: dict[int, dict[str, TensorPlan]] = {}

    def follow(self, tensor: TensorPlan, sources: Sequence[Checkpoint], *, merging: bool) -> None:
        """Notes what a planned tensor is made of. merging: whether what is made of it is merged with others."""
        merging = merging or tensor.action in MERGING
        for number in tensor.inputs:
            self._reach(sources[number], tensor.name_in(number), merging)

    def add_tied(self, view: CheckpointView) -> None:
        """Notes tensors that a view leaves out because they are another one of its."""
        for alias, target in view.aliases.items():
            if alias in view.checkpoint.tensors and alias not in view.names.values():
                fates = [self.merged[key] for key in _raw(view, target) if key in self.merged]
                for fate in fates:
                    self._reach(view.checkpoint, alias, fate)

    def fates_beside(self, views: Sequence[CheckpointView]) -> dict[str, bool | None]:
        """What became of the tensors of other checkpoints that the views of a model join to it."""
        joined = {name: place for view in views if isinstance(view, JoinedView) for name, place in view.joined.items()}
        return {name: self.merged.get((id(one), there)) for name, (one, there) in joined.items()}

    def _reach(self, checkpoint: Checkpoint, name: str, merging: bool) -> None:
        for raw, there in _shown(checkpoint, name):
            if raw.merge is not None and not raw.merge.composed:
                self.follow(self._plan_of(raw, raw.merge)[there], raw.sources, merging=merging)
            elif parts := raw.made_of(there):
                for part, of_part in parts:
                    self._reach(part, of_part, merging)
            else:
                key = id(raw), there
                self.merged[key] = self.merged.get(key, False) or merging

    def _plan_of(self, raw: Checkpoint, plan: MergePlan) -> dict[str, TensorPlan]:
        if id(raw) not in self._planned:
            self._planned[id(raw)] = {tensor.name: tensor for tensor in plan.tensors}
        return self._planned[id(raw)]


def _shown(checkpoint: Checkpoint, name: str) -> list[tuple[Checkpoint, str]]:
    """The tensors that a tensor shows of the checkpoint behind all views, or of one that is joined to it."""
    if not isinstance(checkpoint, CheckpointView):
        return [(checkpoint, name)]
    if isinstance(checkpoint, JoinedView) and name in checkpoint.joined:
        return [checkpoint.joined[name]]
    return [found for there in checkpoint.shows(name) for found in _shown(checkpoint.checkpoint, there)]


def _raw(checkpoint: Checkpoint, name: str) -> list[_Key]:
    return [(id(raw), there) for raw, there in _shown(checkpoint, name)]
