"""A merge from config to published directory: the order of the stages, and nothing else."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from modelmerger.config.resolve import resolve
from modelmerger.engine.devices import slice_device
from modelmerger.hooks.calls import Hooks, described
from modelmerger.inputs.unchanged import recheck
from modelmerger.output.journal import BlockRecord
from modelmerger.output.manifest import FILE, is_plain, make_manifest, total_counts, total_observed
from modelmerger.output.publishing import check_output, check_room, finish_earlier, publish
from modelmerger.output.staging import Staging, Step, no_step, staged_size
from modelmerger.planning.make_plan import make_plan
from modelmerger.planning.opening import KeptModels, Opened, opened
from modelmerger.planning.updates import MergedUpdates, merge_updates, merging_updates
from modelmerger.progress import no_progress
from modelmerger.validation.texts import check_dataset
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.errors import ConfigError, ModelCompatibilityError, PluginError, Problem, raise_errors
from modelmerger.values.layout import BLOCK
from modelmerger.values.report import MergeReport
from modelmerger.values.settings import Settings

if TYPE_CHECKING:
    import torch

    from modelmerger.values.plan import MergePlan


log = logging.getLogger("modelmerger")


def set_level(settings: Settings) -> None:
    """`verbose` and `log_level` act on the `modelmerger` logger, never on the root logger.

    Where nobody would show what is asked for, the logger gets a handler of its own, on stderr.
    """
    log.setLevel(settings.options.level)
    asked = settings.options.verbose or settings.options.log_level is not None
    if asked and not log.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        handler.addFilter(lambda _: not logging.getLogger().handlers)  # nothing is shown twice once the root has one
        log.addHandler(handler)


@frozen(kw_only=True)
class Watch:
    """Who looks on. progress: called with bytes done and bytes in all. step: called before each step that changes the disk."""

    progress: Callable[[int, int], None] = no_progress
    step: Step = no_step


@frozen(eq=False)
class Prepared:
    """A config whose models are open and fit together, with its plan; and what became of their updates, where these are merged."""

    settings: Settings
    hooks: Hooks
    checkpoints: Sequence[Checkpoint]
    plan: "MergePlan"
    notes: Sequence[Problem] = field(factory=list)
    updates: MergedUpdates | None = None

    @property
    def read(self) -> Sequence[Checkpoint]:
        """What the plan's tensors are read from."""
        return self.checkpoints if self.updates is None else [self.updates.checkpoint]


def accept_all(_: Prepared) -> None:
    """Nothing else stands against a merge."""


@contextlib.contextmanager
def prepared(config: Mapping[str, Any], kept: KeptModels | None = None) -> Iterator[Prepared]:
    """Everything before the first write: raises whatever stands against the merge."""
    settings, hooks = resolve(config)
    with opened(settings, hooks, kept) as models:
        notes = _compatible(hooks, models)
        revisions = [location.revision for location in models.locations]
        updates = merge_updates(hooks, models.checkpoints, models.settings)
        plan = make_plan(hooks, models.checkpoints, models.settings, revisions, updates)
        yield Prepared(models.settings, hooks, models.checkpoints, plan, [*notes, *plan.notes], updates)


def check(config: Mapping[str, Any], kept: KeptModels | None = None) -> list[Problem]:
    """What is to be said of the merge, from headers and JSON alone. Raises what they say against it."""
    settings, hooks = resolve(config)
    with opened(settings, hooks, kept) as models:
        notes = _compatible(hooks, models)
        updates = merging_updates(hooks, models.checkpoints, models.settings)
        if updates is not None:  # their ranks, and so the plan, depend on the weights
            return [*notes, *updates.notes]
        return [*notes, *make_plan(hooks, models.checkpoints, models.settings).notes]


def _compatible(hooks: Hooks, models: Opened) -> list[Problem]:
    problems = hooks.check_compatibility(models.checkpoints, models.settings)
    raise_errors(problems, ModelCompatibilityError)
    check_dataset(models.settings.validation)
    return [*_config_notes(models), *models.notes, *problems]


def run_merge(
    config: Mapping[str, Any],
    output: Path | None = None,
    watch: Watch | None = None,
    accept: Callable[[Prepared], None] = accept_all,
    kept: KeptModels | None = None,
) -> MergeReport:
    """Merges and publishes. `output` wins over the config's output_path; with neither, `ConfigError`.

    `accept` is called before the first write, and raises what else stands against the merge. `kept`: see `opened`.
    """
    watch = watch or Watch()
    started = time.monotonic()
    with prepared(config, kept) as ready:
        set_level(ready.settings)
        accept(ready)
        target = output or (
            Path(os.path.expanduser(ready.settings.output_path)) if ready.settings.output_path else None
        )
        if target is None:
            raise ConfigError("no output path: give output_path in the config, or --output on the command line.")
        target = Path(os.path.abspath(target))
        overwrite = ready.settings.options.overwrite
        staging = Staging(target, ready.plan.digest, ready.plan.layout, watch.step)
        finished = finish_earlier(staging, ready.plan.digest, overwrite, watch.step)
        if finished is not None:
            _say(finished)
            seconds = time.monotonic() - started
            return _report(ready, target, staging, [*ready.notes, *finished], ready.plan.bytes_written, seconds)
        check_output(target, overwrite, ready.checkpoints)
        from modelmerger.engine.copied_tensors import (
            check_exact_tensors,  # torch is imported here, after all that can be refused without it
        )

        device = slice_device(ready.settings.options.device_map)
        compared = check_exact_tensors(ready.plan, ready.read)
        check_room(target, max(0, ready.plan.disk - staged_size(target)))
        with staging:
            notes = list(ready.notes)
            if staging.removed_other_plan:
                message = "an unfinished merge of another plan (config, inputs or plugins differ) was removed."
                notes.append(Problem(message, str(staging.root), severity="warning"))
            _say(notes)
            log.info("merging %d tensors (%s)", len(ready.plan.tensors), ready.plan.strategy)
            reused = _staged_bytes(staging.records, ready.plan)
            _merge(ready, staging, watch, reused, compared, device)
            _write_documents(ready, staging)
            staging.sync()
            for file in ready.plan.inputs:
                recheck(file)
            left = publish(staging, overwrite, watch.step)
            log.info("published %s", target)
            _say(left)
            return _report(ready, target, staging, [*notes, *left], reused, time.monotonic() - started)


def _say(notes: Sequence[Problem]) -> None:
    for note in notes:
        log.log(logging.WARNING if note.severity == "warning" else logging.INFO, "%s", note)


def _config_notes(models: Opened) -> list[Problem]:
    if models.settings.peft is None or any(checkpoint.base is not None for checkpoint in models.checkpoints):
        return []
    return [Problem("none of the models is an adapter, so peft_config has no effect.", "peft_config", severity="note")]


def _merge(ready: Prepared, staging: Staging, watch: Watch, reused: int, compared: int, device: "torch.device") -> None:
    import threading

    from modelmerger.engine.arithmetic import one_thread_each
    from modelmerger.engine.blocks import MergeWork

    total = ready.plan.bytes_read + ready.plan.bytes_written
    lock = threading.Lock()
    done = compared + (total - compared) * reused // max(1, ready.plan.bytes_written)

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            watch.progress(done, total)

    if ready.settings.options.torch_compile:
        ready.hooks.compile_strategy()
    with one_thread_each():
        work = MergeWork(ready.plan, ready.read, ready.hooks, ready.settings, staging, advance, device)
        ready.hooks.run_slices(work)
    if _staged_bytes(staging.records, ready.plan) != ready.plan.bytes_written:
        raise ready.hooks.unfinished()


def _write_documents(ready: Prepared, staging: Staging) -> None:
    """Sidecars of every plugin, then the manifest, last."""
    documents: dict[str, bytes] = dict(ready.plan.layout.documents)
    taken = {file.name: "the weights" for file in ready.plan.layout.files} | dict.fromkeys(documents, "the weights")
    taken[FILE] = "the manifest"
    for provider, written in ready.hooks.write_sidecars(ready.plan, ready.checkpoints, ready.settings):
        for name, content in written.items():
            if not is_plain(name) or not isinstance(content, bytes):
                raise PluginError(
                    f"{described(provider)} wants to write {name!r}, which is no plain file name with bytes."
                )
            if name in taken:
                raise PluginError(f"{name} is written twice: by {taken[name]} and by {described(provider)}.")
            documents[name], taken[name] = content, described(provider)
    manifest = make_manifest(
        ready.plan, ready.hooks, ready.settings, ready.checkpoints, staging.records, documents, ready.notes
    )
    for name, content in {**documents, FILE: manifest}.items():
        staging.write_document(name, content)


def _staged_bytes(records: Mapping[tuple[int, int], BlockRecord], plan: "MergePlan") -> int:
    sizes = [file.size for file in plan.layout.files]
    return sum(min(BLOCK, sizes[file] - block * BLOCK) for file, block in records)


def _report(
    ready: Prepared, target: Path, staging: Staging, notes: Sequence[Problem], reused: int, seconds: float
) -> MergeReport:
    observed = total_observed(staging.records)
    for tensor, error in (ready.updates.relative_errors if ready.updates else {}).items():
        observed.setdefault(tensor, {})["relative error"] = error
    return MergeReport(
        output=str(target),
        strategy=ready.settings.strategy,
        models=[model.name for model in ready.settings.models],
        tensors=len(ready.plan.tensors),
        bytes_read=ready.plan.bytes_read,
        bytes_written=ready.plan.bytes_written,
        bytes_reused=reused,
        seconds=seconds,
        plan=ready.plan.digest,
        notes=notes,
        counts=total_counts(staging.records),
        observed=observed,
        relative_error=ready.updates.relative_error if ready.updates else None,
        base=ready.checkpoints[-1].place if ready.plan.writes == "adapter" else None,
    )
