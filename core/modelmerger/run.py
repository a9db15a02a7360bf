"""A merge from settings to a published directory: the order of its stages, and nothing else."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from modelmerger.before_publishing import asking, is_thorough, measuring, removed_if_refused
from modelmerger.engine.devices import slice_device
from modelmerger.hooks.assembly import Hooks
from modelmerger.hooks.inquiries.asking import Asked
from modelmerger.inputs.unchanged import recheck
from modelmerger.orders import for_workers
from modelmerger.output.manifest import read_manifest, total_counts, total_observed
from modelmerger.output.publishing import clear_published, extra_entries, finish_earlier, publish
from modelmerger.output.staging import Staging
from modelmerger.output.steps import Step, no_step
from modelmerger.planning.opening import ModelCache
from modelmerger.planning.prepared import Prepared, check_models, prepare
from modelmerger.refusals import check_output_of, check_target, output_of, refuse
from modelmerger.validation.texts import check_dataset
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.composition import Composition
from modelmerger.values.errors import ConfigError, Problem
from modelmerger.values.plan import WHOLE_MODEL, MergePlan
from modelmerger.values.report import MergeReport
from modelmerger.values.settings import Settings
from modelmerger.values.work.block_record import BlockRecord

if TYPE_CHECKING:
    import torch


log = logging.getLogger("modelmerger")


def no_progress(_: int, __: int) -> None:
    """Ignores progress."""


def set_level(settings: Settings) -> None:
    """Sets the level of the `modelmerger` logger from `verbose` and `log_level`; the root logger is left alone.

    If the user asked for messages and no handler would show them, the logger gets one of its own, on stderr.
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
    """What is called while a merge runs, from any of its threads. Whatever they raise ends the merge."""

    progress: Callable[[int, int], None] = no_progress
    """Called with the bytes that are done and those in all."""
    step: Step = no_step
    """Called before each step that changes the disk."""


def check(
    settings: Settings, hooks: Hooks, cache: ModelCache | None = None, *, output: Path | None = None
) -> list[Problem]:
    """Warnings and notes about the merge, from headers and JSON alone. Raises the errors, those of the output too.

    cache: see `open_models`. output: wins over the config's output_path.
    """
    with check_models(settings, hooks, cache, merged=make_merged) as checked:
        refuse(checked.settings, hooks, output, checked.inputs, checked.plan)
    with asking(settings, checked.inquiries) as asked:
        return [*checked.notes, *asked.answers()]


def make_merged(
    name: str,
    plan: MergePlan,
    checkpoints: Sequence[Checkpoint],
    hooks: Hooks,
    settings: Settings,
    composition: Composition | None,
) -> Checkpoint:
    """The checkpoint of a merge within the merge, whose module few merges need."""
    from modelmerger.engine.merged_checkpoint import MergedCheckpoint

    return MergedCheckpoint(name, plan, checkpoints, hooks, settings, composition)


def accept_all(_: Prepared) -> None:
    """Accepts every merge."""


def run_merge(
    settings: Settings,
    hooks: Hooks,
    output: Path | None = None,
    watch: Watch | None = None,
    accept: Callable[[Prepared], None] = accept_all,
    cache: ModelCache | None = None,
    *,
    reread: bool = False,
) -> MergeReport:
    """Merges and publishes. Raises `MergeError`.

    output: wins over the config's output_path. accept: called before the first write; raises where the caller cannot
    accept the merge. cache: see `open_models`. reread: whether what shares of the merge made is read again, although
    they ended well.
    """
    started = time.monotonic()
    loads = settings.validation is not None and settings.validation.run_tests
    thorough = partial(is_thorough, settings, loads=loads)
    opened = partial(check_output_of, output)
    with prepare(settings, hooks, cache, merged=make_merged, thorough=thorough, opened=opened) as ready:
        begin(ready, accept)
        return merge_to_directory(ready, output, watch or Watch(), started, reread=reread)


def begin(ready: Prepared, accept: Callable[[Prepared], None]) -> None:
    """What every merge does before its first step: see `run_merge`."""
    set_level(ready.settings)
    accept(ready)
    check_dataset(ready.settings.validation)


def merge_to_directory(
    ready: Prepared, output: Path | None, watch: Watch, started: float, *, reread: bool = False
) -> MergeReport:
    """Publishes a merge that was begun. started: when that was, by `time.monotonic`. reread: see `run_merge`."""
    target = output_of(ready.settings, output)
    if target is None:
        raise ConfigError("no output path. Give the config an output_path; on the command line, --output does as well.")
    options = ready.settings.options
    finished = finish_earlier(target, lambda: _with_digest(ready).plan.digest, options.overwrite, watch.step)
    if finished is not None:
        ready = _with_digest(ready)
        say(finished.notes)
        notes, seconds = [*ready.notes, *finished.notes], time.monotonic() - started
        ready = evolve(ready, figures=read_manifest(target).get("figures", {})).with_stock()
        return report_of(ready, target, finished.records, notes, seconds, reused=ready.plan.bytes_written)
    left_before = clear_published(target, watch.step)
    check_target(target, ready.settings, ready.inputs, ready.plan)
    # torch is imported here, after every check that can do without it
    from modelmerger.engine.copied_tensors import check_exact_tensors, check_exact_tensors_within
    from modelmerger.engine.sidecars import write_documents
    from modelmerger.engine.work.executing import bytes_of_blocks

    device = slice_device(ready.settings.options.device_map)
    compared = check_exact_tensors(ready.plan, ready.sources) + check_exact_tensors_within(ready.checkpoints)
    ready = evolve(ready, notes=[*ready.notes, *compared.notes])
    ready = _with_digest(ready)
    inquiries = asking(ready.settings, ready.inquiries)
    how: dict[str, Any] = {"direct": ready.plan.direct, "decides": ready.plan.decides, "reread": reread}
    staged = Staging(target, ready.plan.digest, ready.plan.layout, watch.step, **how)
    with inquiries as asked, measuring(ready) as measured, staged as staging:
        notes = [*ready.notes, *left_before, *staging.notes]
        if staging.removed_other_plan:
            message = "an unfinished merge of another plan (config, inputs, plugins or arithmetic differ) was removed."
            notes.append(Problem(message, str(staging.root), severity="warning"))
        say(notes)
        log.info("merging %d tensors (%s)", len(ready.plan.tensors), ready.plan.strategy)
        reused = bytes_of_blocks(staging.records, ready.plan)
        with removed_if_refused(staging):
            _merge(ready, staging, watch, reused, compared.bytes, device, asked)
            answers = [*asked.answers(), *measured.answers()]
        say(answers)
        extra = extra_entries(target, options)
        ready = evolve(ready, notes=[*ready.notes, *answers], figures=measured.figures).with_stock()
        write_documents(ready, staging.records, staging.write_document, extra)
        staging.keep(extra)
        staging.sync()
        for file in ready.input_files:
            recheck(file)
        left = publish(staging, options, watch.step)
        log.info("published %s", target)
        say(left)
        seconds = time.monotonic() - started
        return report_of(ready, target, staging.records, [*notes, *answers, *left], seconds, reused=reused)


def _with_digest(ready: Prepared) -> Prepared:
    """Imports torch, whose arithmetic is a part of it."""
    from modelmerger.engine.arithmetic_digest import with_digest

    return with_digest(ready)


def say(notes: Sequence[Problem]) -> None:
    """Logs warnings and notes."""
    for note in notes:
        log.log(logging.WARNING if note.severity == "warning" else logging.INFO, "%s", note)


def _merge(
    ready: Prepared,
    staging: Staging,
    watch: Watch,
    reused: int,
    compared: int,
    device: "torch.device",
    asked: Asked,
) -> None:
    from modelmerger.engine.merge import Merge
    from modelmerger.engine.work.executing import carry_out

    advance = counted(ready.plan, watch, compared, asked, reused)
    merge = Merge(ready.plan, ready.sources, ready.hooks, ready.settings, device)
    carry_out(merge, staging, advance, for_workers(ready, staging))


def counted(plan: MergePlan, watch: Watch, compared: int, asked: Asked, reused: int = 0) -> Callable[[int], None]:
    """What is called with bytes that were read or written. compared, reused: those that are done already."""
    total = plan.bytes_read + plan.bytes_written
    lock = threading.Lock()
    done = compared + (total - compared) * reused // max(1, plan.bytes_written)

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            watch.progress(done, total)
        asked.look()

    return advance


def report_of(
    ready: Prepared,
    target: Path,
    records: Mapping[tuple[int, int], BlockRecord],
    notes: Sequence[Problem],
    seconds: float,
    *,
    reused: int = 0,
    in_memory: bool = False,
) -> MergeReport:
    """The report of a merge that is done. records: of all its blocks. reused: bytes that an earlier run had made."""
    observed = total_observed(records)
    for tensor, found in (ready.composition.observed if ready.composition else {}).items():
        observed.setdefault(tensor, {}).update(found)
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
        counts=total_counts(records),
        observed=observed,
        relative_error=ready.composition.relative_error if ready.composition else None,
        base=_base_of(ready),
        in_memory=in_memory,
        beside=ready.plan.beside,
        figures=ready.figures,
        input_tensors=ready.input_tensors,
    )


def _base_of(ready: Prepared) -> str | None:
    """Where the model lies that the output belongs to; None for a whole model, and where there is no base model."""
    if ready.plan.writes == WHOLE_MODEL or ready.settings.base_model is None:
        return None
    return ready.checkpoints[-1].place
