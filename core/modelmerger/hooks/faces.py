"""The hooks about models and about what is written, with typed arguments, and answers that are checked."""

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
    """Hooks about models: where they are, how they are opened, and whether they can be merged."""

    calls: Calls
    """The plugins of the run."""

    def check_config(self, settings: Settings) -> list[Problem]:
        """Problems that plugins find in a config in which the core found none."""
        return self._problems("check_config", settings=settings)

    def locate_model(self, reference: ModelReference) -> Location:
        """Where the model is: at its path, unless a plugin knows better."""
        found = self.calls.ask_first("locate_model", reference=reference)
        if found is not None and not isinstance(found, Location):
            raise self.calls.wrong_answer("locate_model", found, "a Location or None")
        return found or as_given(reference)

    def load_model(self, reference: ModelReference, context: LoadContext) -> Checkpoint | None:
        """The model as a checkpoint; None where no plugin knows what it is."""
        found = self.calls.ask_first("load_model", reference=reference, context=context)
        if found is not None and not isinstance(found, Checkpoint):
            raise self.calls.wrong_answer("load_model", found, "a Checkpoint or None")
        return found

    def check_compatibility(self, checkpoints: Sequence[Checkpoint], settings: Settings) -> list[Problem]:
        """Problems that plugins find in merging these models."""
        return self._problems("check_compatibility", checkpoints=checkpoints, settings=settings)

    def wants_updates(self, checkpoints: Sequence[Checkpoint], settings: Settings, able: bool) -> bool:
        """Whether what the models change of their base is merged, in place of the models. able: whether it can be."""
        found = self.calls.ask_first("wants_updates", checkpoints=checkpoints, settings=settings, able=able)
        if found is not None and not isinstance(found, bool):
            raise self.calls.wrong_answer("wants_updates", found, "True, False or None")
        return bool(found)

    def merge_updates(
        self, checkpoints: Sequence[Checkpoint], settings: Settings, coefficients: Coefficients
    ) -> MergedUpdates | None:
        """The merged updates of the models; None where no plugin can merge them."""
        found = self.calls.ask_first(
            "merge_updates", checkpoints=checkpoints, settings=settings, coefficients=coefficients
        )
        if found is not None and not isinstance(found, MergedUpdates):
            raise self.calls.wrong_answer("merge_updates", found, "MergedUpdates or None")
        return found

    def _problems(self, hook: str, **arguments: Any) -> list[Problem]:
        answers = self.calls.ask_each(hook, **arguments)
        for name, problems in answers:
            if not is_list_of(Problem, problems or ()):
                raise self.calls.wrong_answer(hook, problems, "Problems", name)
        return [problem for _, problems in answers for problem in problems or ()]


@frozen(eq=False)
class OutputHooks:
    """Hooks about what is written: the layout, how slices are executed and observed, the files beside the weights."""

    calls: Calls
    """The plugins of the run."""
    executor: str | None = None
    """The key of the plugin that executes the slices; None for the first that will."""

    def save_model(self, tensors: Sequence[OutputTensor], max_shard_size: int, stem: str = "model") -> Layout:
        """The layout of the merged weights. max_shard_size: bytes. stem: what the files are named by."""
        layout = self.calls.ask_first("save_model", tensors=tensors, max_shard_size=max_shard_size, stem=stem)
        if layout is None:
            raise PluginError(
                "no plugin lays out the output files (hook 'save_model'). Is the built-in one switched off?"
            )
        if not isinstance(layout, Layout):
            raise self.calls.wrong_answer("save_model", layout, "a Layout or None")
        return layout

    @property
    def executes_here(self) -> bool:
        """Whether the work is done in this process for sure.

        So it is where the config names no executor, and no other distribution brings one that is always on.
        """
        providers = [self.calls.providers[plugin] for plugin in self.calls.plugins_with("run_slices")]
        return self.executor is None and all(provider.built_in for provider in providers)

    def run_slices(self, work: SliceWork) -> None:
        """Executes all units of the work."""
        if self.executor is not None:
            if not self.calls.ask_one("run_slices", self.executor, work=work):
                raise PluginError(f"{self.calls.providers[self.executor]} declined to execute the slices.")
        elif not self.calls.ask_first("run_slices", work=work):
            raise PluginError("no plugin executes the slices (hook 'run_slices'). Is the built-in one switched off?")

    def unfinished_error(self) -> PluginError:
        """The error for a `run_slices` that returned before every block was written."""
        return PluginError(
            f"{self.calls.suspects('run_slices')}: run_slices came back before all of the work was done."
        )

    def observers(self, settings: Settings) -> frozenset[str]:
        """The keys of the plugins whose `observe_slice` is called in this merge."""
        wants = self.calls.ask_each("wants_slices", settings=settings)
        for name, wanted in wants:
            if not isinstance(wanted, bool):
                raise self.calls.wrong_answer("wants_slices", wanted, "True or False", name)
        declined = {name for name, wanted in wants if not wanted}
        return frozenset(self.calls.plugins_with("observe_slice")) - declined

    def observe_slice(
        self,
        observers: Container[str],
        tensors: Sequence["torch.Tensor"],
        merged: "torch.Tensor",
        tensor_name: str,
        inputs: Sequence[int],
        settings: Settings,
    ) -> Mapping[str, float]:
        """The statistics of the observers for a slice, each by its plugin's key and its own name."""
        arguments = {"tensors": tensors, "merged": merged, "tensor_name": tensor_name, "inputs": inputs}
        answers = self.calls.ask_each("observe_slice", tensor_name, observers, settings=settings, **arguments)
        for name, found in answers:
            numbers = list(found.values()) if isinstance(found, Mapping) else [found or 0]
            if not is_list_of((int, float), numbers):
                raise self.calls.wrong_answer("observe_slice", found, "numbers by name", name, tensor_name)
        return {f"{plugin}: {key}": value for plugin, found in answers for key, value in (found or {}).items()}

    def write_sidecars(
        self, plan: MergePlan, checkpoints: Sequence[Checkpoint], settings: Settings, reserved: Mapping[str, str]
    ) -> dict[str, bytes]:
        """The files beside the weights: content by path. reserved: names that are taken, and who has them."""
        arguments: dict[str, Any] = {"plan": plan, "checkpoints": checkpoints, "settings": settings}
        return gather_files(self.calls, "write_sidecars", reserved, **arguments)
