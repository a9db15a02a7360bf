"""A merge whose weights are never written: they stay in memory, and the files beside them go to a directory."""

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from modelmerger.before_publishing import asking, measuring
from modelmerger.engine.devices import slice_device
from modelmerger.inputs.available_memory import available_memory
from modelmerger.inputs.unchanged import recheck
from modelmerger.output.documents import write_document
from modelmerger.output.steps import no_step
from modelmerger.output.system_errors import output_errors
from modelmerger.planning.prepared import Prepared
from modelmerger.run import Watch, counted, report_of, say
from modelmerger.values.dtypes import DTYPES
from modelmerger.values.report import MergeReport

if TYPE_CHECKING:
    from torch import Tensor

SHARE = 0.5
"""Of the memory that is available, what merged weights may take at most."""
log = logging.getLogger("modelmerger")


def fits_in_memory(ready: Prepared) -> bool:
    """Whether the merged weights take less than half of the memory that is available, and torch has their dtypes.

    Weights in folders are files beside the model, which only a directory has.
    """
    known = all(DTYPES[tensor.dtype].torch_name is not None for tensor in ready.plan.tensors)
    return known and not ready.plan.layout.apart and ready.plan.bytes_written < SHARE * available_memory()


def merge_to_memory(
    ready: Prepared, directory: Path, watch: Watch, started: float
) -> "tuple[MergeReport, dict[str, Tensor]]":
    """Carries out a merge that was begun, and returns its report and the merged tensors by name.

    directory: is made, for config, tokenizer, manifest and whatever else lies beside weights. watch: whose `progress`
    is called. started: when the merge was begun, by `time.monotonic`. Raises `MergeError`.
    """
    from modelmerger.engine.arithmetic_digest import with_digest
    from modelmerger.engine.copied_tensors import check_exact_tensors, check_exact_tensors_within
    from modelmerger.engine.merge import Merge
    from modelmerger.engine.sidecars import write_documents
    from modelmerger.engine.work.executing import carry_out
    from modelmerger.output.sinks.memory_sink import MemorySink

    ready = with_digest(ready)
    device = slice_device(ready.settings.options.device_map)
    compared = check_exact_tensors(ready.plan, ready.sources) + check_exact_tensors_within(ready.checkpoints)
    ready = evolve(ready, notes=[*ready.notes, *compared.notes])
    say(ready.notes)
    log.info("merging %d tensors (%s)", len(ready.plan.tensors), ready.plan.strategy)
    sink = MemorySink(ready.plan.layout)
    with asking(ready.settings, ready.inquiries) as asked, measuring(ready) as measured:
        advance = counted(ready.plan, watch, compared.bytes, asked)
        carry_out(Merge(ready.plan, ready.sources, ready.hooks, ready.settings, device), sink, advance)
        answers = [*asked.answers(), *measured.answers()]
    say(answers)
    ready = evolve(ready, notes=[*ready.notes, *answers], figures=measured.figures).with_stock()
    with output_errors(directory):
        directory.mkdir()
        tree = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        write_documents(
            ready, sink.records, lambda name, content: write_document(tree, directory, name, content, no_step)
        )
    finally:
        os.close(tree)
    for file in ready.input_files:
        recheck(file)
    seconds = time.monotonic() - started
    return report_of(ready, directory, sink.records, ready.notes, seconds, in_memory=True), sink.tensors
