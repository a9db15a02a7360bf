"""The typed faces of the plugins that are always on: whom the core asks about models, and about what is written."""

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from modelmerger.hooks.answers import is_list_of
from modelmerger.hooks.calls import Calls
from modelmerger.hooks.files import gather_files
from modelmerger.inputs.loading import LoadContext, as_given
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import PluginError, Problem
from modelmerger.values.layout import Layout, OutputTensor
from modelmerger.values.model_reference import Location, ModelReference
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings
from modelmerger.values.units import SliceWork
from modelmerger.values.updates import Coefficients, MergedUpdates

if TYPE_CHECKING:
    import torch


@frozen(eq=False)
class ModelHooks:
    """Hooks about models: where they lie, how they are opened, and whether they go together."""

    calls: Calls
    """Through which plugins are asked."""

    def check_config(self, settings: Settings) -> list[Problem]:
        """What plugins have against a config that the core has nothing against."""
        return self._problems("check_config", settings=settings)

    def locate_model(self, reference: ModelReference) -> Location:
        """Where the model lies: where its path says, unless a plugin knows better."""
        found = self.calls.first("locate_model", reference=reference)
        if found is not None and not isinstance(found, Location):
            raise self.calls.wrong_answer("locate_model", found, "a Location or None")
        return found or as_given(reference)

    def load_model(self, reference: ModelReference, context: LoadContext) -> Checkpoint | None:
        """The model as a checkpoint; None where no plugin knows what it is."""
        found = self.calls.first("load_model", reference=reference, context=context)
        if found is not None and not isinstance(found, Checkpoint):
            raise self.calls.wrong_answer("load_model", found, "a Checkpoint or None")
        return found

    def check_compatibility(self, checkpoints: Sequence[Checkpoint], settings: Settings) -> list[Problem]:
        """What plugins have to say of merging these models."""
        return self._problems("check_compatibility", checkpoints=checkpoints, settings=settings)

    def wants_updates(self, checkpoints: Sequence[Checkpoint], settings: Settings, able: bool) -> bool:
        """Whether what the models change of their base is merged, in place of the models."""
        found = self.calls.first("wants_updates", checkpoints=checkpoints, settings=settings, able=able)
        if found is not None and not isinstance(found, bool):
            raise self.calls.wrong_answer("wants_updates", found, "True, False or None")
        return bool(found)

    def merge_updates(
        self, checkpoints: Sequence[Checkpoint], settings: Settings, coefficients: Coefficients
    ) -> MergedUpdates | None:
        """What became of the models' updates; None where no plugin merges those of such models."""
        found = self.calls.first("merge_updates", checkpoints=checkpoints, settings=settings, coefficients=coefficients)
        if found is not None and not isinstance(found, MergedUpdates):
            raise self.calls.wrong_answer("merge_updates", found, "MergedUpdates or None")
        return found

    def _problems(self, hook: str, **arguments: Any) -> list[Problem]:
        answers = self.calls.each(hook, **arguments)
        for name, problems in answers:
            if not is_list_of(Problem, problems or ()):
                raise self.calls.wrong_answer(hook, problems, "Problems", name)
        return [problem for _, problems in answers for problem in problems or ()]


@frozen(eq=False)
class OutputHooks:
    """Hooks about what is written: the layout, who makes the slices and who looks on, the files beside the weights."""

    calls: Calls
    """Through which plugins are asked."""

    def save_model(self, tensors: Sequence[OutputTensor], max_shard_size: int, stem: str = "model") -> Layout:
        """Where every byte of the merged weights will lie."""
        layout = self.calls.first("save_model", tensors=tensors, max_shard_size=max_shard_size, stem=stem)
        if layout is None:
            raise PluginError(
                "no plugin lays out the output files (hook 'save_model'). Is the built-in one switched off?"
            )
        if not isinstance(layout, Layout):
            raise self.calls.wrong_answer("save_model", layout, "a Layout or None")
        return layout

    def run_slices(self, work: SliceWork) -> None:
        """Executes the work, all of it."""
        if not self.calls.first("run_slices", work=work):
            raise PluginError("no plugin executes the slices (hook 'run_slices'). Is the built-in one switched off?")

    def unfinished(self) -> PluginError:
        """The error for a `run_slices` that came back before every block was written."""
        return PluginError(
            f"{self.calls.suspects('run_slices')}: run_slices came back before all of the work was done."
        )

    def observers(self, settings: Settings) -> frozenset[str]:
        """The plugins whose `observe_slice` is called in this merge."""
        wants = self.calls.each("wants_slices", settings=settings)
        for name, wanted in wants:
            if not isinstance(wanted, bool):
                raise self.calls.wrong_answer("wants_slices", wanted, "True or False", name)
        declined = {name for name, wanted in wants if not wanted}
        return frozenset(self.calls.who_answer("observe_slice")) - declined

    def observe_slice(
        self,
        observers: Container[str],
        tensors: Sequence["torch.Tensor"],
        merged: "torch.Tensor",
        tensor_name: str,
        inputs: Sequence[int],
        settings: Settings,
    ) -> Mapping[str, float]:
        """What the observers see in a slice: statistics by the name of the plugin and their own."""
        arguments = {"tensors": tensors, "merged": merged, "tensor_name": tensor_name, "inputs": inputs}
        answers = self.calls.each("observe_slice", tensor_name, observers, settings=settings, **arguments)
        for name, found in answers:
            numbers = list(found.values()) if isinstance(found, Mapping) else [found or 0]
            if not is_list_of((int, float), numbers):
                raise self.calls.wrong_answer("observe_slice", found, "numbers by name", name, tensor_name)
        return {f"{plugin}: {key}": value for plugin, found in answers for key, value in (found or {}).items()}

    def write_sidecars(
        self, plan: MergePlan, checkpoints: Sequence[Checkpoint], settings: Settings, taken: Mapping[str, str]
    ) -> dict[str, bytes]:
        """The files beside the weights. `taken`: names that others have, and who they are."""
        arguments: dict[str, Any] = {"plan": plan, "checkpoints": checkpoints, "settings": settings}
        return gather_files(self.calls, "write_sidecars", taken, **arguments)
