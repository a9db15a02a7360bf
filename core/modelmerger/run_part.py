"""One share of a merge, which others make the rest of and publish."""

import logging
import threading
import time
from functools import partial
from pathlib import Path

from modelmerger.config.merge_config import ConfigLike, MergeConfig
from modelmerger.engine.devices import slice_device
from modelmerger.engine.merged_checkpoint import MergedCheckpoint
from modelmerger.hooks.assembly import Hooks
from modelmerger.inputs.unchanged import recheck
from modelmerger.orders import for_workers
from modelmerger.output.digests import block_count
from modelmerger.output.parts.part_staging import PartStaging
from modelmerger.planning.prepared import Prepared, prepare
from modelmerger.refusals import check_output_of, check_target, output_of
from modelmerger.run import Watch, accept_all, begin, say
from modelmerger.values.errors import ConfigError, Problem
from modelmerger.values.settings import Settings
from modelmerger.values.work.part import Part, PartReport

log = logging.getLogger("modelmerger")


def merge_part(config: ConfigLike, part: str, watch: Watch | None = None) -> PartReport:
    """Makes one share of the blocks of a merge, and publishes nothing: `merge` does, with what all shares have made.

    part: its number, counted from 0, and how many there are: `3/16`. config, watch: as in `merge`. Shares may run at
    the same time, on one machine or on many that see the same files; so may not two of one number, or a share and a
    merge. Raises `MergeError`.
    """
    share = Part.parsed(part)
    settings, hooks = MergeConfig.of(config).resolved()
    return run_part(settings, hooks, share, watch=watch)


def run_part(
    settings: Settings, hooks: Hooks, part: Part, output: Path | None = None, watch: Watch | None = None
) -> PartReport:
    """Makes one share of the blocks of a merge, and publishes nothing. Raises `MergeError`.

    output: wins over the config's output_path.
    """
    started = time.monotonic()
    if settings.has_live:
        message = "models in memory are merged, which no other process can open. Give paths, or merge without parts."
        raise ConfigError(Problem(message, "part"))
    with prepare(settings, hooks, merged=MergedCheckpoint, opened=partial(check_output_of, output)) as ready:
        begin(ready, accept_all)
        target = output_of(ready.settings, output)
        if target is None:
            raise ConfigError("no output path. Give the config an output_path, the same for all parts.")
        check_target(target, ready.settings, ready.inputs, ready.plan)
        return _made(ready, part, target, watch or Watch(), started)


def _made(ready: Prepared, part: Part, target: Path, watch: Watch, started: float) -> PartReport:
    # torch is imported here, after every check that can do without it
    from modelmerger.engine.arithmetic_digest import with_digest
    from modelmerger.engine.copied_tensors import check_exact_tensors, check_exact_tensors_within
    from modelmerger.engine.merge import Merge
    from modelmerger.engine.work.executing import bytes_of_blocks, carry_out
    from modelmerger.engine.work.sharing import blocks_of_part

    compared = check_exact_tensors(ready.plan, ready.sources) + check_exact_tensors_within(ready.checkpoints)
    ready = with_digest(ready)
    plan = ready.plan
    blocks = blocks_of_part(plan, part)
    all_blocks = {(number, i) for number, file in enumerate(plan.layout.files) for i in range(block_count(file.size))}
    own = bytes_of_blocks(blocks, plan)
    staged = PartStaging(target, part, plan.digest, plan.decides, plan.layout, blocks, watch.step, direct=plan.direct)
    with staged as staging:
        notes = [*ready.notes, *compared.notes]
        if staging.removed_other_plan:
            message = "an unfinished merge of another plan (config, inputs, plugins or arithmetic differ) was removed."
            notes.append(Problem(message, str(staging.tree.parent), severity="warning"))
        say(notes)
        log.info("making part %s of %d tensors (%s)", part, len(plan.tensors), plan.strategy)
        reused = bytes_of_blocks(staging.records, plan)
        share = own / max(1, plan.bytes_written)
        total = int((plan.bytes_read + plan.bytes_written) * share)
        done, lock = total * reused // max(1, own), threading.Lock()

        def advance(count: int) -> None:
            nonlocal done
            with lock:
                done = min(total, done + count)
                watch.progress(done, total)

        merge = Merge(plan, ready.sources, ready.hooks, ready.settings, slice_device(ready.settings.options.device_map))
        carry_out(merge, staging, advance, for_workers(ready, staging), all_blocks - blocks)
        for file in plan.inputs:
            recheck(file)
        staging.finish()
    return PartReport(
        part=str(part),
        output=str(target),
        strategy=ready.settings.strategy,
        models=[model.name for model in ready.settings.models],
        bytes_written=own,
        bytes_of_all=plan.bytes_written,
        bytes_reused=reused,
        seconds=time.monotonic() - started,
        plan=plan.digest,
        notes=notes,
    )
