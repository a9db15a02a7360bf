"""What a merge refuses that is not about its models: output, disk, device, executor, texts of the validation."""

import os
from collections.abc import Callable
from pathlib import Path

from modelmerger.engine.devices import check_device
from modelmerger.hooks.assembly import Hooks
from modelmerger.output.earlier.apart import Inputs, check_scratch
from modelmerger.output.publishing import check_output, check_room, may_be_done
from modelmerger.output.staging_directory import staged_size
from modelmerger.validation.texts import check_dataset
from modelmerger.values.errors import ConfigError, MergeError, Problem
from modelmerger.values.model_reference import user_path
from modelmerger.values.plan import MergePlan
from modelmerger.values.settings import Settings


def output_of(settings: Settings, output: Path | None = None) -> Path | None:
    """Where the merged model goes, as an absolute path; None where nothing says so.

    output: wins over the config's output_path.
    """
    target = output or (user_path(settings.output_path) if settings.output_path else None)
    return None if target is None else Path(os.path.abspath(target))


def check_target(target: Path, settings: Settings, inputs: Inputs, plan: MergePlan | None) -> None:
    """Raises `OutputError` for an output that may not be written, or whose disk is too full. plan: None: not known."""
    check_output(target, settings.options, inputs)
    check_scratch(settings.options.offload_folder, inputs)
    if plan is not None:
        check_room(target, max(0, plan.disk - staged_size(target)))


def check_output_of(output: Path | None, settings: Settings, inputs: Inputs) -> None:
    """Raises `OutputError` for an output that may not be written, if there is one. output: see `output_of`."""
    target = output_of(settings, output)
    if target is not None and not may_be_done(target, settings.options):
        check_output(target, settings.options, inputs)


def check_executor(settings: Settings, hooks: Hooks) -> None:
    """Raises `ConfigError` where workers elsewhere could not open the models, or import a plugin."""
    if settings.has_live:
        message = "models in memory are merged, which no worker elsewhere can open. Give paths, or leave it out."
        raise ConfigError(Problem(message, "options.executor"))
    for provider in hooks.all_providers:
        if provider.digest:
            message = f"{provider} is not installed, so no worker elsewhere can import it. Package it, or leave it out."
            raise ConfigError(Problem(message, "options.executor"))


def refuse(settings: Settings, hooks: Hooks, output: Path | None, inputs: Inputs, plan: MergePlan | None) -> None:
    """Raises what a merge of models that fit would raise before it reads a tensor, all of it at once.

    output: see `output_of`; without one, nothing is said of it. plan: None where it is not known yet.
    """
    checks: list[Callable[[], None]] = [
        lambda: check_dataset(settings.validation),
        lambda: check_device(settings.options.device_map),
    ]
    if not hooks.output.executes_here:
        checks.append(lambda: check_executor(settings, hooks))
    target = output_of(settings, output)
    if target is not None and not may_be_done(target, settings.options):
        checks.append(lambda: check_target(target, settings, inputs, plan))
    refused: list[MergeError] = []
    for check in checks:
        try:
            check()
        except MergeError as error:
            refused.append(error)
    if refused:
        raise type(refused[0])(*(problem for error in refused for problem in error.problems))
