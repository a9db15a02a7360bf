"""A directory of adapters, opened as its base with them folded in. No weights are read."""

import os
from collections.abc import Iterator
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
    is_head,
    list_directory,
    shown,
)

from modelmerger_plugins.peft_adapters.folding.adapter import Adapter
from modelmerger_plugins.peft_adapters.folding.folded import Folded
from modelmerger_plugins.peft_adapters.reading import bases, config
from modelmerger_plugins.peft_adapters.reading.keys import read_keys
from modelmerger_plugins.peft_adapters.reading.saved_keys import as_peft_writes
from modelmerger_plugins.peft_adapters.section import DEFAULT, NAME, of_adapters, whole_key

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
UNTIE = "options.untie"
"""The key of the option that writes tied matrices both."""
OF_MODELS = (".safetensors", ".index.json", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".npz")
"""How names of weights end that a directory may hold itself."""
WIDE = ("float32", "float64")
"""Values of torch_dtype for which changed tensors are made in float64, so that what is written is rounded once."""


def load(reference: ModelReference, context: LoadContext) -> Checkpoint | None:
    """The base with the adapters of a directory folded in; None where the directory is no adapter.

    Raises `InputError` with everything that stands against merging them.
    """
    path, settings = reference.local, context.settings
    names = of_adapters(settings).adapter_names
    directories = [path if name == DEFAULT else path / name for name in names]
    present = [os.path.lexists(directory / config.FILE) for directory in directories]
    if not any(present) and not os.path.lexists(path / config.FILE):
        if below := _adapters_below(path):
            raise InputError(_below(path, below, whole_key(settings, f"{NAME}.adapter_names")))
        return None
    if not all(present):
        raise InputError(_absent(path, names[present.index(False)]))
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
        files += [context.open_file(directory / config.FILE), *stored.files]
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
    raise InputError(Problem(f"has no {WEIGHTS[0]}. Is the adapter complete?", str(directory)))


def _adapters_below(path: Path) -> list[str]:
    """The adapters in sub-folders of a directory that holds no weights itself."""
    names = list_directory(path) if os.path.isdir(path) else []
    if any(name.endswith(OF_MODELS) for name in names):
        return []
    return [name for name in names if os.path.lexists(path / name / config.FILE)]


def _below(path: Path, names: list[str], key: str) -> Problem:
    several = len(names) > 1
    found = ", ".join(f"'{shown(name, 40)}'" for name in names[:5]) + (", …" if len(names) > 5 else "")
    message = (
        f"holds no model, but the adapter{'s' if several else ''} {found} in {'' if several else 'a '}"
        f"sub-folder{'s' if several else ''}. Set {key}: [{shown(names[0], 40)}]."
    )
    return Problem(message, str(path))


def _absent(path: Path, name: str) -> Problem:
    there = [entry for entry in list_directory(path) if os.path.lexists(path / entry / config.FILE)]
    if os.path.lexists(path / config.FILE):
        there.insert(0, DEFAULT)
    found = ", ".join(map(shown, there))
    message = f"has no adapter {shown(name)!r}, which peft_config.adapter_names wants. It has: {found}."
    return Problem(message, str(path))


def _other_base(adapter: config.AdapterConfig, used: ModelReference) -> Iterator[Problem]:
    """A warning where the adapter says that it was trained on another model than it is folded into."""
    if bases.is_another(adapter, used):
        message = (
            f"was trained on {shown(adapter.base)!r}, and is merged with {shown(used.path)!r} as its base. "
            "Are they the same model?"
        )
        yield Problem(message, str(adapter.path), severity="warning")
