"""Merges adapters into one: their updates, tensor by tensor, with the strategy's coefficients.

The merged adapter is written, or folded into the base.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from attrs import evolve
from modelmerger import (
    WHOLE_MODEL,
    Checkpoint,
    Coefficients,
    Composition,
    ConfigError,
    Problem,
    Settings,
    one_thread_each,
    torch_dtype,
)

from modelmerger_plugins.peft_adapters.folding.adapter import Adapter
from modelmerger_plugins.peft_adapters.folding.folded import Folded
from modelmerger_plugins.peft_adapters.folding.untrained import untrained
from modelmerger_plugins.peft_adapters.merging.adapter_config import adapter_config
from modelmerger_plugins.peft_adapters.merging.factored import FactoredPart
from modelmerger_plugins.peft_adapters.merging.in_cores import check_cores
from modelmerger_plugins.peft_adapters.merging.merged_adapter import MergedAdapter
from modelmerger_plugins.peft_adapters.merging.names import with_peft_names
from modelmerger_plugins.peft_adapters.merging.part import Measured, Part
from modelmerger_plugins.peft_adapters.merging.sorter import Sorter
from modelmerger_plugins.peft_adapters.options import Options
from modelmerger_plugins.peft_adapters.section import FILE

LARGE_ERROR = 0.1
"""A relative error that the user is warned of."""
COPIES = 4
"""Copies of a tensor's factors that its product takes: stacked, orthogonal, the product, and one in between."""


def merge(
    models: Sequence[Folded], base: Checkpoint, settings: Settings, options: Options, coefficients: Coefficients
) -> Composition:
    """The merged updates of these models, as an adapter or folded into the base.

    All factors are read, since they decide the ranks. Raises `ModelCompatibilityError` for updates that have no merged
    form, `ConfigError` for weights that leave nothing, and `NumericError` for factors with a NaN or an infinity.
    """
    written = settings.options.written("F32")
    parts = Sorter(models, base, options).parts(coefficients.kept)
    check_cores(parts, base, settings, options, coefficients)
    found = _measured(
        parts, base, settings, coefficients, torch_dtype(written) if options.to_adapter else torch.float64
    )
    known = with_peft_names([item.part for item in found])
    adapter = MergedAdapter("the merged adapter", known, tuple(file for model in models for file in model.files))
    square = sum(item.square for item in found)
    error = math.sqrt(sum(item.missing for item in found) / square) if square else 0.0
    result = Composition(
        adapter,
        dict.fromkeys(adapter.tensors, written),
        "adapter",
        "adapter_model",
        sharded=False,
        updates=True,
        adds_up=options.merge_method not in ("svd", "peft_linear") and not any(map(_in_cores, known)),
        observed={item.part.tensor: {"relative error": item.relative_error} for item in found if item.square},
        relative_error=error,
        memory=COPIES * 8 * max((part.numbers for part in known), default=0),
        notes=[_note_on_error(error), *(note for model in models for note in untrained(model))],
    )
    if not options.to_adapter:
        return _folded(result, adapter, models[0], settings)
    configs = [adapter.config for model in models for adapter in model.adapters if adapter.config is not None]
    content = adapter_config(known, configs, base, models[0].base.reference)
    return evolve(result, documents={FILE: content})


def _measured(
    parts: Sequence[Part], base: Checkpoint, settings: Settings, coefficients: Coefficients, dtype: torch.dtype
) -> list[Measured]:
    """The parts that count, with their coefficients and ranks, and what is lost when they are written in `dtype`."""
    # each thread says so itself too: torch hears of it lazily, thread by thread
    with (
        one_thread_each(),
        ThreadPoolExecutor(settings.options.workers, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        weighed = list(pool.map(lambda part: part.weighed(base, coefficients), parts))
        found = list(pool.map(lambda part: part.measured(dtype), [part for part in weighed if part.counts]))
    if not found:
        message = "every coefficient of this merge is zero, so nothing would be left. Give a weight other than 0."
        raise ConfigError(Problem(message, "models"))
    return found


def _folded(result: Composition, adapter: MergedAdapter, like: Folded, settings: Settings) -> Composition:
    """The same, folded into the base. `like`: a model of that base."""
    changes = {tensor: [change] for part in adapter.parts for tensor, change in part.changes.items()}
    allow_nonfinite = settings.options.allow_nonfinite
    base = like.base.checkpoint
    model = Folded(base.name, like.base, [Adapter(adapter, changes, allow_nonfinite)], (), base.donor, like.wide)
    dtypes = {name: settings.options.written(info.dtype) for name, info in base.tensors.items()}
    return evolve(result, checkpoint=model, dtypes=dtypes, writes=WHOLE_MODEL, stem="model", sharded=True)


def _in_cores(part: Part) -> bool:
    return isinstance(part, FactoredPart) and part.merge_cores is not None


def _note_on_error(relative_error: float) -> Problem:
    """How far the merged updates are from what was asked for; a warning above `LARGE_ERROR`."""
    message = f"the merged updates differ from the exact merge by {relative_error:.2g} of their norm"
    if relative_error <= LARGE_ERROR:
        return Problem(f"{message}.", "updates", severity="note")
    advice = "Give a higher rank, or merge_method: linear, which is exact"
    return Problem(f"{message}: more than 10 %. {advice}.", "updates", severity="warning")
