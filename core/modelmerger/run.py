"""A merge from config to published directory: the order of the stages, and nothing else."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from modelmerger.checkpoint import Checkpoint, ModelReference
from modelmerger.errors import ConfigError, InputError, ModelCompatibilityError, PluginError, Problem, raise_errors
from modelmerger.files import InputFiles, recheck
from modelmerger.hooks import Hooks, described
from modelmerger.journal import BlockRecord
from modelmerger.layout import BLOCK
from modelmerger.live import place_of
from modelmerger.loading import LoadContext
from modelmerger.manifest import FILE, is_plain, make_manifest, total_counts
from modelmerger.naming import base_name
from modelmerger.planning import make_plan
from modelmerger.progress import no_progress
from modelmerger.publishing import check_output, check_room, finish_earlier, publish
from modelmerger.report import MergeReport
from modelmerger.resolve import resolve
from modelmerger.settings import Settings
from modelmerger.staging import Staging, Step, no_step, staged_size

if TYPE_CHECKING:
    from modelmerger.plan import MergePlan


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
    """A config whose models are open and fit together, with its plan."""

    settings: Settings
    hooks: Hooks
    checkpoints: Sequence[Checkpoint]
    plan: "MergePlan"
    notes: Sequence[Problem] = field(factory=list)


@contextlib.contextmanager
def opened(settings: Settings, hooks: Hooks) -> Iterator[list[Checkpoint]]:
    """The checkpoints of a config: the models in order, then the base model if one is given."""
    files = InputFiles(1 if settings.options.sequential_loading else 32)
    try:
        context = LoadContext(files, settings.options.allow_pickle)
        named = [(place_of(i), model.path, model.name) for i, model in enumerate(settings.models)]
        if settings.base_model is not None:
            named.append(("base_model", settings.base_model, base_name(settings)))
        references = [ModelReference(path, name, place, settings.live.get(place)) for place, path, name in named]
        yield _load_all(references, hooks, context)
    finally:
        files.close()


@contextlib.contextmanager
def prepared(config: Mapping[str, Any]) -> Iterator[Prepared]:
    """Everything before the first write: raises whatever stands against the merge."""
    settings, hooks = resolve(config)
    with opened(settings, hooks) as checkpoints:
        problems = hooks.check_compatibility(checkpoints, settings)
        raise_errors(problems, ModelCompatibilityError)
        plan = make_plan(hooks, checkpoints, settings)
        yield Prepared(settings, hooks, checkpoints, plan, [*_config_notes(settings), *problems, *plan.notes])


def run_merge(config: Mapping[str, Any], output: Path | None = None, watch: Watch | None = None) -> MergeReport:
    """Merges and publishes. `output` wins over the config's output_path; with neither, `ConfigError`."""
    watch = watch or Watch()
    started = time.monotonic()
    with prepared(config) as ready:
        set_level(ready.settings)
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
        from modelmerger.exact import (
            check_exact_tensors,  # torch is imported here, after all that can be refused without it
        )

        compared = check_exact_tensors(ready.plan, ready.checkpoints)
        check_room(target, max(0, ready.plan.disk - staged_size(target)))
        with staging:
            notes = list(ready.notes)
            if staging.removed_other_plan:
                message = "an unfinished merge of another plan (config, inputs or plugins differ) was removed."
                notes.append(Problem(message, str(staging.root), severity="warning"))
            _say(notes)
            log.info("merging %d tensors (%s)", len(ready.plan.tensors), ready.plan.strategy)
            reused = _staged_bytes(staging.records, ready.plan)
            _merge(ready, staging, watch, reused, compared)
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


def _load_all(references: Sequence[ModelReference], hooks: Hooks, context: LoadContext) -> list[Checkpoint]:
    problems: list[Problem] = []
    checkpoints = []
    for reference in references:
        try:
            checkpoints.append(_load(reference, hooks, context))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    return checkpoints


def _load(reference: ModelReference, hooks: Hooks, context: LoadContext) -> Checkpoint:
    checkpoint = hooks.load_model(reference, context)
    if checkpoint is None:
        raise InputError(Problem(_not_found(reference.path), reference.path))
    return checkpoint


def _not_found(path: str) -> str:
    if os.path.exists(os.path.expanduser(path)):
        return "is no model: neither a directory with safetensors weights nor a .safetensors file. Check the path."
    local = path.startswith((".", "/", "~")) or path.count("/") != 1
    hub = "" if local else " Models by Hub id are not available yet: download it and give the directory."
    return f"does not exist. Check the path.{hub}"


def _config_notes(settings: Settings) -> list[Problem]:
    if settings.peft is None:
        return []
    return [Problem("none of the models is an adapter, so peft_config has no effect.", "peft_config", severity="note")]


def _merge(ready: Prepared, staging: Staging, watch: Watch, reused: int, compared: int) -> None:
    import threading

    import torch

    from modelmerger.engine import MergeWork

    total = ready.plan.bytes_read + ready.plan.bytes_written
    lock = threading.Lock()
    done = compared + (total - compared) * reused // max(1, ready.plan.bytes_written)

    def advance(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            watch.progress(done, total)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        work = MergeWork(ready.plan, ready.checkpoints, ready.hooks, ready.settings, staging, advance)
        ready.hooks.run_slices(work)
    finally:
        torch.set_num_threads(threads)
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
    observed: dict[str, dict[str, float]] = {}
    for key in sorted(staging.records):
        for tensor, found in staging.records[key].observed.items():
            sums = observed.setdefault(tensor, {})
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value
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
    )
