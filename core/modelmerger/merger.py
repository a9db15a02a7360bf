"""The Python API: `ModelMerger` returns the merged model as an object, `merge` leaves it on the disk."""

import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve

from modelmerger.before_publishing import is_thorough
from modelmerger.config.given_models import without_path
from modelmerger.config.merge_config import ConfigLike, MergeConfig
from modelmerger.config.models_in_memory import set_apart
from modelmerger.engine.merged_checkpoint import MergedCheckpoint
from modelmerger.hooks.assembly import Hooks, assemble, plugins_of
from modelmerger.hooks.registry import Registry
from modelmerger.output.earlier.apart import Inputs, check_scratch
from modelmerger.output.scratch import Scratch
from modelmerger.planning.configs import CONFIG
from modelmerger.planning.opening import ModelCache, open_models
from modelmerger.planning.prepared import Prepared, prepare
from modelmerger.progress import show_progress, show_tasks
from modelmerger.refusals import check_output_of
from modelmerger.run import Watch, begin, check, merge_to_directory, no_progress, run_merge, say
from modelmerger.run_in_memory import fits_in_memory, merge_to_memory
from modelmerger.validation.candidate import merged_candidate
from modelmerger.validation.running import no_progress as no_tasks
from modelmerger.validation.running import save_report, validate, validate_published
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import ConfigError, InputError, ModelCompatibilityError, Problem, raise_errors
from modelmerger.values.findings import ValidationReport
from modelmerger.values.model_reference import user_path
from modelmerger.values.options.core import CoreOptions
from modelmerger.values.plan import WHOLE_MODEL
from modelmerger.values.report import MergeReport
from modelmerger.values.settings import ModelSettings, Settings, ValidationSettings
from modelmerger.values.text import said_by, shown

if TYPE_CHECKING:
    from torch import Tensor

    from modelmerger.values.plan import MergePlan


def merge(
    config: ConfigLike, watch: Watch | None = None, *, progress: bool = True, reread: bool = False
) -> MergeReport:
    """Merges and publishes to the config's output_path, and validates the result if the config says so.

    config: also a mapping with its keys, or the path of its file. Loads no model, except to validate it. watch: what is
    called while the merge runs. progress: whether a bar is shown on a terminal or in a notebook; with `watch`, none is.
    reread: whether what `merge_part` made is read again, although it ended well. Raises `MergeError`. If a threshold is
    crossed, nothing is raised: see `validation` in the report.
    """
    settings, hooks = MergeConfig.of(config).resolved()
    shown = progress and watch is None
    with _bar(shown) as advance:
        report = run_merge(settings, hooks, watch=watch or Watch(progress=advance), reread=reread)
    with _tasks(shown and settings.validation is not None) as tell:
        return validate_published(report, settings, hooks, tell)


class ModelMerger:
    """Merges the models of a config, and returns the merged model.

    config: also a mapping with its keys, or the path of its file. Raises `ConfigError`.

    ```python
    merger = ModelMerger(config)
    model = merger.merge()
    print(merger.merge_report)
    ```
    """

    def __init__(self, config: ConfigLike) -> None:
        self.config = MergeConfig.of(config)
        """What is merged; it may be changed between two merges."""
        self.merge_report: MergeReport | None = None
        """What happened in the last `merge()`."""
        self.validation_report: ValidationReport | None = None
        """What the last validation found."""
        self._published: Path | None = None
        self._inputs: Inputs = {}
        self._open = ExitStack()
        self._cache = self._open.enter_context(ModelCache())
        weakref.finalize(self, self._open.close)

    def check_compatibility(self) -> list[Problem]:
        """Checks the models from headers and JSON alone, and returns warnings and notes.

        Raises `ModelCompatibilityError` if they cannot be merged.
        """
        settings, hooks = self.config.resolved()
        return check(evolve(settings, output_path=None), hooks, self._cache)

    def load_models(self) -> dict[str, Checkpoint]:
        """Opens every source as a checkpoint, by name. Weights are read on demand; files stay open with the merger.

        Raises `InputError`.
        """
        settings, hooks = self.config.resolved()
        models = self._open.enter_context(open_models(settings, hooks, self._cache, merged=MergedCheckpoint))
        return {checkpoint.name: checkpoint for checkpoint in models.checkpoints}

    def plan(self, *, composed: bool = True) -> "MergePlan":
        """What a merge would do and cost. Raises `MergeError`.

        composed: False for what it would be if no plugin composed the models, such as adapters to one.
        """
        from modelmerger.engine.arithmetic_digest import with_digest

        with prepare(*self.config.resolved(), self._cache, merged=MergedCheckpoint, composed=composed) as ready:
            return with_digest(ready).plan

    def merge(self, *, progress: bool = True) -> Any:
        """Merges, publishes to output_path, and returns the merged model in evaluation mode.

        It is an instance of the transformers class that `architectures[0]` of its config names, placed as `device_map`
        says. Without a config.json, it is a checkpoint, whose weights are read on demand. If an adapter was made, it is
        a PEFT model: the base with that adapter.

        Without output_path, weights that take less than half of the memory that is available are not written at all.
        Others are in a temporary directory (inside offload_folder if that is given), which is removed with the returned
        object. The returned model is the same either way.

        If the config asks for a validation, it comes before the model is returned. If a threshold is crossed, nothing
        is raised, but `validation_report.passed` is False. progress: whether a bar is shown on a terminal or in a
        notebook. Raises `MergeError`.
        """
        from modelmerger.validation.transformers_model import check_loadable, load_merged

        settings, hooks = self.config.resolved()
        started = time.monotonic()
        named = {name: [str(user_path(path))] for name, path in settings.all_paths.items()}
        check_scratch(settings.options.offload_folder, named)
        with Scratch(settings.options.offload_folder) as scratch:
            output = scratch.path / "merged" if settings.output_path is None else None
            thorough = partial(is_thorough, settings, loads=True)
            opened = partial(check_output_of, output)
            with prepare(
                settings, hooks, self._cache, merged=MergedCheckpoint, thorough=thorough, opened=opened
            ) as ready:
                begin(ready, check_loadable)
                self._inputs = ready.inputs
                with _bar(progress) as advance:
                    watch = Watch(progress=advance)
                    if output is not None and _stays_in_memory(ready):
                        report, tensors = merge_to_memory(ready, output, watch, started)
                    else:
                        report, tensors = merge_to_directory(ready, output, watch, started), None
            self.merge_report, self._published = report, Path(report.output)
            if tensors is not None:
                model = self._built(report, tensors, settings, hooks, progress)
            else:
                base = Path(report.base) if report.base else None
                with _tasks(progress and settings.validation is not None) as tell:
                    self.merge_report = validate_published(report, settings, hooks, tell)
                model = load_merged(self._published, settings.options, scratch.path / "offload", hooks, base)
            self.validation_report = self.merge_report.validation
            scratch.goes_with(model)
        return model

    def _built(
        self, report: MergeReport, tensors: "dict[str, Tensor]", settings: Settings, hooks: Hooks, progress: bool
    ) -> Any:
        """The model of tensors in memory, validated if the config says so."""
        from modelmerger.validation.built_model import build
        from modelmerger.validation.transformers_model import checkpoint_gradients

        model = build(Path(report.output), tensors, settings.options)
        with _tasks(progress and settings.validation is not None) as tell:
            held = model, Path(report.output)
            self.merge_report = validate_published(report, settings, hooks, tell, held=held)
        if settings.options.gradient_checkpointing:
            checkpoint_gradients(model)
        return model

    def validate_merge(self, model: Any) -> ValidationReport:
        """Validates a model that `merge()` returned, even with `run_tests: false`, and saves the report beside it.

        Raises `ConfigError` before the first merge.
        """
        if self._published is None:
            raise ConfigError("nothing is merged yet, so there is nothing to validate. Call merge() first.")
        settings, hooks = self.config.resolved(validating=True)
        candidate = merged_candidate(self._published, settings, held=(model, self._published))
        report = validate(candidate, settings.validation or ValidationSettings(), hooks)
        save_report(self._published, report, hooks)
        self.validation_report = report
        if self.merge_report is not None:
            self.merge_report = evolve(self.merge_report, validation=report)
        return report

    @property
    def tokenizer(self) -> Any:
        """The merged model's tokenizer; None where it has none.

        Raises `ConfigError` before the first merge, and after a merge without output_path once its model is gone, and
        `InputError` for a tokenizer that runs away where it is tried out, or that transformers cannot load.
        """
        if self._published is None:
            raise ConfigError("nothing is merged yet, so there is no tokenizer. Call merge() first.")
        if not self._published.exists():
            gone = "the merged model was in a temporary directory, which is gone with the model that merge() returned"
            raise ConfigError(f"{gone}. Keep that model, or give output_path.")
        from modelmerger.validation.tokenizing import Proof
        from modelmerger.validation.transformers_model import load_tokenizer

        try:
            return load_tokenizer(self._published, Proof(self._published.name))
        except Exception as error:
            reason = f"has a tokenizer that cannot be loaded: {shown(said_by(error), 200)}"
            raise InputError(Problem(reason, str(self._published))) from error

    def save_merged_model(self, model: Any, output_path: str | os.PathLike[str]) -> None:
        """Saves a model that `merge()` returned to another directory, which appears whole or not at all.

        Raises `ConfigError` before the first merge, and `OutputError`.
        """
        if self._published is None:
            raise ConfigError("nothing is merged yet, so there is nothing to save. Call merge() first.")
        from modelmerger.validation.saving import save

        settings, hooks = self.config.resolved()
        target = Path(os.path.abspath(user_path(output_path)))
        names = hooks.validation.name_saved_tensors
        say(save(model, self._published, target, settings.options, self._inputs, file_names=names))


def _bar(wanted: bool) -> AbstractContextManager[Callable[[int, int], None]]:
    return show_progress("merging") if wanted else nullcontext(no_progress)


def _tasks(wanted: bool) -> AbstractContextManager[Callable[[str, int, int], None]]:
    return show_tasks("validating") if wanted else nullcontext(no_tasks)


def _stays_in_memory(ready: Prepared) -> bool:
    """Whether a merge without output_path needs no file of weights."""
    from modelmerger.validation.built_model import can_build

    donor = ready.checkpoints[ready.plan.donor].donor
    options, config = ready.settings.options, ready.configs.get(CONFIG, donor.config)
    return (
        options.offload_folder is None
        and ready.plan.writes == WHOLE_MODEL
        and ready.hooks.output.executes_here
        and config is not None
        and can_build(config, options, ready.hooks.validation)
        and fits_in_memory(ready)
    )


def check_model_compatibility(models: Sequence[Mapping[str, Any]]) -> None:
    """Raises `ModelCompatibilityError` if models cannot be merged. models: mappings, each with a `path`."""
    if problems := without_path(models):
        raise ConfigError(*problems)
    plain, live = set_apart({"models": models})
    entries: list[Any] = plain["models"]
    from modelmerger.planning.alignment import align
    from modelmerger.planning.mismatches.vocabularies import matched_vocabularies

    plugins = plugins_of(Registry.installed(), None)
    hooks = assemble(plugins)
    settings = Settings(
        strategy="none",
        models=tuple(
            ModelSettings(path=os.fsdecode(model["path"]), name=f"model {i}") for i, model in enumerate(entries)
        ),
        base_model=None,
        output_path=None,
        options=CoreOptions(),
        strategy_options=None,
        model_options=(None,) * len(entries),
        plugin_options={plugin.provider.name: plugin.options() for plugin in plugins if plugin.options is not None},
        sections={section.name: None for section in hooks.sections},
        validation=None,
        given={},
        live=live,
    )
    try:
        with open_models(settings, hooks, merged=MergedCheckpoint) as found:
            for checkpoint in found.checkpoints:
                if checkpoint.donor.directory is not None and checkpoint.donor.config is None:
                    raise ModelCompatibilityError(
                        Problem("Config not found", f"{checkpoint.donor.directory}/config.json")
                    )
            raise_errors(matched_vocabularies(found.checkpoints), ModelCompatibilityError)
            raise_errors(hooks.models.check_compatibility(found.checkpoints, found.settings), ModelCompatibilityError)
            raise_errors(align(found.checkpoints, 0)[1], ModelCompatibilityError)
    except InputError as error:
        raise ModelCompatibilityError(*error.problems) from error
