"""The hooks about models and about what is written, with typed arguments, and answers that are checked."""

from collections.abc import Callable, Container, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from attrs import frozen

from modelmerger.hooks.answers import are_shares, fault_of_tensors, is_list_of, plain_json
from modelmerger.hooks.calls import Calls
from modelmerger.hooks.compositions import check_composition
from modelmerger.hooks.files import gather_files, gather_folders
from modelmerger.hooks.problems import gather_problems
from modelmerger.inputs.executable import executable_keys
from modelmerger.inputs.loading import LoadContext, as_given
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.composition import Coefficients, Composition, DeferredComposition
from modelmerger.values.errors import InputError, PluginError, Problem
from modelmerger.values.file_identity import FileIdentity
from modelmerger.values.layout import FilesBeside, Layout, OutputTensor
from modelmerger.values.model_reference import Location, ModelReference
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings
from modelmerger.values.text import amount, said_by
from modelmerger.values.work.inquiry import Inquiry
from modelmerger.values.work.units import SliceWork

if TYPE_CHECKING:
    from modelmerger.values.subject import Texts


@frozen(eq=False, repr=False)
class ModelHooks:
    """Hooks about models: where they are, how they are opened, and whether they can be merged."""

    calls: Calls
    """The plugins of the run."""

    def explain_config(self, config: Mapping[str, Any], problems: Sequence[Problem]) -> Sequence[Problem]:
        """What is wrong with a config, as plugins say it, one after the other."""
        for plugin in self.calls.plugins_with("explain_config"):
            said = self.calls.ask_one("explain_config", plugin, config=config, problems=list(problems))
            if said is not None:
                if not is_list_of(Problem, said) or not said:
                    raise self.calls.wrong_answer("explain_config", said, "one Problem or more", plugin)
                problems = said
        return problems

    def expand_model(self, reference: ModelReference, model_options: Mapping[str, Any]) -> Mapping[str, float] | None:
        """What an entry stands for: the path and the share of each model; None where it is a model itself.

        model_options: of the plugins that have some, by their keys.
        """
        for plugin in self.calls.plugins_with("expand_model"):
            arguments = {"reference": reference, "model_options": model_options.get(plugin)}
            found = self.calls.ask_one("expand_model", plugin, **arguments)
            if found is None:
                continue
            if not are_shares(found):
                due = "None or a mapping from paths to finite numbers"
                raise self.calls.wrong_answer("expand_model", found, due, plugin)
            return {str(path): float(share) for path, share in found.items()}
        return None

    def check_config(self, settings: Settings, without: Container[str] = ()) -> list[Problem]:
        """Problems that plugins find in a config. without: the keys of plugins that are not asked."""
        asked = [plugin for plugin in self.calls.plugins_with("check_config") if plugin not in without]
        return gather_problems(self.calls, "check_config", asked, settings=settings)

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
        if found is not None:
            self._check_tensors("load_model", found)
        return found

    def view_models(
        self, checkpoints: Sequence[Checkpoint], settings: Settings, context: LoadContext
    ) -> Sequence[Checkpoint]:
        """The models as plugins see them, one after the other; within another merge, as those do that act there.

        context: for what else is opened of them.
        """
        arguments: dict[str, Any] = {"settings": settings, "context": context}
        for plugin in self.calls.in_turn("view_models", settings.where):
            views = self.calls.ask_one("view_models", plugin, checkpoints=list(checkpoints), **arguments)
            if views is not None:
                self._check_views(plugin, checkpoints, views)
                checkpoints = list(views)
        return checkpoints

    def check_compatibility(self, checkpoints: Sequence[Checkpoint], settings: Settings) -> list[Problem]:
        """Problems that plugins find in merging these models."""
        return gather_problems(self.calls, "check_compatibility", checkpoints=checkpoints, settings=settings)

    def compose_model(
        self, checkpoints: Sequence[Checkpoint], settings: Settings, coefficients: Callable[[], Coefficients] | None
    ) -> Composition | DeferredComposition | None:
        """The composition of these models; None where nobody composes them. coefficients: as the hook has them."""
        arguments: dict[str, Any] = {"checkpoints": checkpoints, "settings": settings, "coefficients": coefficients}
        found = self.calls.ask_first("compose_model", **arguments)
        if isinstance(found, DeferredComposition):
            if not is_list_of(Problem, found.notes):
                raise self.calls.wrong_answer("compose_model", f"the notes {found.notes!r}", "Problems")
            return found
        return None if found is None else check_composition(self.calls, found)

    def finish_composition(self, deferred: DeferredComposition) -> Composition:
        """What a deferred composition comes to."""
        return check_composition(self.calls, self.calls.guard("compose_model", deferred.compose))

    def taken_name_error(self, document: str) -> PluginError:
        """The error for a document of a composition that has the name of another file."""
        return self.calls.wrong_answer("compose_model", f"the document {document!r}", "one whose name is free")

    def nonfinite_error(self, tensor_name: str) -> PluginError:
        """The error for a composition that made a NaN or an infinity of finite inputs."""
        what = "compose_model made a NaN or an infinity of finite inputs"
        return PluginError(Problem(f"{self.calls.suspects('compose_model')}: {what}.", tensor=tensor_name))

    def _check_tensors(self, hook: str, checkpoint: Checkpoint, plugin: str = "") -> None:
        wrong = self.calls.guard(hook, lambda: fault_of_tensors(checkpoint), given={"checkpoints": [checkpoint]})
        if wrong is not None:
            given, due, tensor = wrong
            raise self.calls.wrong_answer(hook, given, due, plugin, tensor)

    def _check_views(self, plugin: str, checkpoints: Sequence[Checkpoint], views: Any) -> None:
        if not is_list_of(Checkpoint, views) or len(views) != len(checkpoints):
            found = amount(len(views), "Checkpoint") if is_list_of(Checkpoint, views) else views
            due = f"{amount(len(checkpoints), 'Checkpoint')} or None"
            raise self.calls.wrong_answer("view_models", found, due, plugin)
        for seen, view in zip(checkpoints, views, strict=True):
            if view is not seen:
                self._check_tensors("view_models", view, plugin)
            kept = {
                "name": view.name == seen.name,
                "files": set(seen.files) <= set(view.files),
                "directory": view.donor.directory == seen.donor.directory,
            }
            for what in (what for what, same in kept.items() if not same):
                raise PluginError(
                    f"{self.calls.providers[plugin]}: view_models did not keep the {what} of '{seen.name}'."
                )


@frozen(eq=False, repr=False)
class OutputHooks:
    """Hooks about what is written: the layout, how slices are executed and observed, the files beside the weights."""

    calls: Calls
    """The plugins of the run."""
    executor: str | None = None
    """The key of the plugin that executes the slices; None for the first that will."""

    def place_tensors(
        self, names: Sequence[str], checkpoints: Sequence[Checkpoint], settings: Settings
    ) -> dict[str, str]:
        """What names of tensors begin with that go to a folder of the output → the folder."""
        arguments: dict[str, Any] = {"names": names, "checkpoints": checkpoints, "settings": settings}
        return gather_folders(self.calls, "place_tensors", **arguments)

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

    def adjust_config(
        self,
        name: str,
        config: Mapping[str, Any],
        plan: MergePlan,
        checkpoints: Sequence[Checkpoint],
        settings: Settings,
    ) -> Mapping[str, Any]:
        """A config of the merged model as plugins want it, one after the other. name: of its file.

        Within another merge, the strategy is asked, and plugins that act there.
        """
        if plain_json(config) is None:
            message = "is the config of a model and holds a NaN, an infinity, or what JSON has not. Mend it."
            raise InputError(Problem(message, f"{checkpoints[plan.donor].place}/{name}"))
        arguments: dict[str, Any] = {"name": name, "plan": plan, "checkpoints": checkpoints, "settings": settings}
        for plugin in self.calls.in_turn("adjust_config", settings.where):
            answer = self.calls.ask_one("adjust_config", plugin, config=deepcopy(config), **arguments)
            if answer is not None:
                if (adjusted := plain_json(answer)) is None:
                    raise self.calls.wrong_answer("adjust_config", answer, "a dict of plain JSON or None", plugin)
                if added := sorted(executable_keys(adjusted) - executable_keys(config)):
                    what = f"gave {name} {', '.join(added)}, which can make a loader run code"
                    raise PluginError(f"{self.calls.providers[plugin]}: adjust_config {what}.")
                config = adjusted
        return config

    def check_output(
        self,
        plan: MergePlan,
        checkpoints: Sequence[Checkpoint],
        configs: Mapping[str, Mapping[str, Any]],
        settings: Settings,
        *,
        thorough: bool,
    ) -> tuple[list[Problem], list[Inquiry]]:
        """Problems that plugins find in what will be written, and what they want to have found out beside the merge."""
        arguments: dict[str, Any] = {"plan": plan, "checkpoints": checkpoints, "configs": configs, "settings": settings}
        answers = self.calls.ask_each("check_output", thorough=thorough, **arguments)
        for name, found in answers:
            if not is_list_of((Problem, Inquiry), found or ()):
                raise self.calls.wrong_answer("check_output", found, "Problems and Inquiries", name)
        said = [one for _, found in answers for one in found or ()]
        return [one for one in said if isinstance(one, Problem)], [one for one in said if isinstance(one, Inquiry)]

    def measure_output(
        self, texts: "Callable[[], Texts]", plan: MergePlan, checkpoints: Sequence[Checkpoint], settings: Settings
    ) -> list[Inquiry]:
        """The inquiries of plugins into figures. texts: what plugins have to score models on, by label."""
        arguments: dict[str, Any] = {"texts": texts, "plan": plan, "checkpoints": checkpoints, "settings": settings}
        answers = self.calls.ask_each("measure_output", **arguments)
        for name, found in answers:
            if not is_list_of(Inquiry, found or ()):
                raise self.calls.wrong_answer("measure_output", found, "Inquiries", name)
        return [one for _, found in answers for one in found or ()]

    def run_slices(self, work: SliceWork) -> None:
        """Executes all units of the work."""
        if self.executor is not None:
            if not self.calls.ask_one("run_slices", self.executor, work=work):
                raise PluginError(f"{self.calls.providers[self.executor]} declined to execute the slices.")
        elif not self.calls.ask_first("run_slices", work=work):
            raise PluginError("no plugin executes the slices (hook 'run_slices'). Is the built-in one switched off?")

    def executor_error(self, error: BaseException) -> PluginError:
        """The error for what an executor or its workers failed of, and no merge."""
        who = self.calls.providers[self.executor] if self.executor else self.calls.suspects("run_slices")
        reason = said_by(error).rstrip(". ") or "no reason given"
        return PluginError(f"{who}: {type(error).__name__}: {reason}. Mend that, and run the same command again.")

    def unfinished_error(self) -> PluginError:
        """The error for a `run_slices` that returned before every block was written."""
        return PluginError(
            f"{self.calls.suspects('run_slices')}: run_slices came back before all of the work was done."
        )

    def write_sidecars(
        self,
        plan: MergePlan,
        checkpoints: Sequence[Checkpoint],
        configs: Mapping[str, Mapping[str, Any]],
        settings: Settings,
        reserved: Mapping[str, str],
    ) -> dict[str, bytes | FileIdentity]:
        """The files beside the weights: path → content, or the file to copy. reserved: names that are taken, and who
        has them.
        """
        arguments: dict[str, Any] = {"plan": plan, "checkpoints": checkpoints, "configs": configs, "settings": settings}
        return gather_files(self.calls, "write_sidecars", reserved, kinds=(bytes, FileIdentity), **arguments)

    def check_files(
        self, beside: FilesBeside, plan: MergePlan, checkpoints: Sequence[Checkpoint], settings: Settings
    ) -> list[Problem]:
        """Problems that plugins find in what becomes of the files beside the weights."""
        arguments: dict[str, Any] = {"beside": beside, "plan": plan, "checkpoints": checkpoints, "settings": settings}
        return gather_problems(self.calls, "check_files", **arguments)
