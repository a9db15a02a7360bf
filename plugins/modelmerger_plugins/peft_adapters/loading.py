"""A directory of adapters, opened as its base with them folded in. No weights are read."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import evolve
from modelmerger import (
    Checkpoint,
    CheckpointView,
    Donor,
    InputError,
    LoadContext,
    ModelReference,
    Problem,
    amount,
    is_head,
    list_directory,
    shown,
)

from modelmerger_plugins.peft_adapters.finding import OF_MODELS
from modelmerger_plugins.peft_adapters.folding.adapter import Adapter
from modelmerger_plugins.peft_adapters.folding.folded import Folded
from modelmerger_plugins.peft_adapters.reading import bases, config
from modelmerger_plugins.peft_adapters.reading.keys import read_keys
from modelmerger_plugins.peft_adapters.reading.saved_keys import as_peft_writes
from modelmerger_plugins.peft_adapters.section import FILE, of_adapters, whole_key

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_PART = re.compile(r"adapter_model-\d{5}-of-\d{5}\.(safetensors|bin)")
"""What transformers calls the files of an adapter that it saves in several."""
UNTIE = "options.untie"
"""The key of the option that writes tied matrices both."""
WIDE = ("float32", "float64")
"""Values of torch_dtype for which changed tensors are made in float64, so that what is written is rounded once."""


def load(reference: ModelReference, directories: Sequence[Path], context: LoadContext) -> Checkpoint:
    """The base with the adapters in these directories folded in.

    Raises `InputError` with everything that stands against merging them.
    """
    path, settings = reference.local, context.settings
    configs = [config.read_config(directory) for directory in directories]
    base = bases.find_base(configs[0], context)
    separate = not of_adapters(settings).merge_adapters
    if separate and settings and settings.options.untie:
        base = evolve(base, checkpoint=_untied(base.checkpoint))
    adapters, files, problems, notes = [], [], [], []
    for directory, of_adapter in zip(directories, configs, strict=True):
        file = context.open_model(ModelReference(str(_weights(directory)), reference.name, reference.where))
        stored, of_keys = as_peft_writes(file)
        notes += of_keys
        reading = read_keys(of_adapter, stored, base, whole_key(settings, UNTIE) if separate else "")
        problems += reading.problems
        notes += [*of_adapter.notes, *_other_base(of_adapter, base.reference)]
        allow_nonfinite = bool(settings and settings.options.allow_nonfinite)
        adapters.append(Adapter(stored, reading.changes, allow_nonfinite, of_adapter))
        files += [context.open_file(directory / FILE), *stored.files]
    if problems:
        raise InputError(*problems)
    return Folded(
        name=reference.name,
        base=base,
        adapters=adapters,
        files=(*files, *base.checkpoint.files),
        donor=Donor(path.absolute(), base.checkpoint.donor.config),
        wide=bool(settings and settings.options.torch_dtype in WIDE),
        notes=notes,
    )


def _untied(base: Checkpoint) -> Checkpoint:
    """The base with each tied matrix as one of its own, for `untie`, which writes both."""
    aliases = {alias: tensor for alias, tensor in base.aliases.items() if is_head(alias)}
    return CheckpointView(base, {name: name for name in base.tensors} | aliases) if aliases else base


def _weights(directory: Path) -> Path:
    for name in WEIGHTS:
        if os.path.lexists(directory / name):
            return directory / name
    raise InputError(Problem(_without_weights(list_directory(directory)), str(directory)))


def _without_weights(present: Sequence[str]) -> str:
    """What to say of an adapter whose weights are not there, or not in one file. present: what its directory holds."""
    parts = [name for name in present if _PART.fullmatch(name)]
    if parts:
        return (
            f"holds its weights in {amount(len(parts), 'file')} ({shown(parts[0], 50)}), and PEFT reads one. "
            f"Put the tensors of all into {WEIGHTS[0]}, with load_file and save_file of safetensors.torch."
        )
    if (model := next((name for name in present if name.endswith(OF_MODELS)), None)) is not None:
        return (
            f"has {FILE} and no {WEIGHTS[0]}, but {shown(model, 60)}. "
            f"If that is the whole model, remove {FILE}, which is left of its adapter."
        )
    return f"has no {WEIGHTS[0]}. Is the adapter complete?"


def _other_base(adapter: config.AdapterConfig, used: ModelReference) -> Iterator[Problem]:
    """A warning where the adapter says that it was trained on another model than it is folded into."""
    if bases.is_another(adapter, used):
        message = (
            f"was trained on {shown(adapter.base)!r}, and is merged with {shown(used.path)!r} as its base. "
            "Are they the same model?"
        )
        yield Problem(message, str(adapter.path), severity="warning")
