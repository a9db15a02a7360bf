"""Whether a path holds adapters, which is looked at before anything else of this plugin is imported."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from modelmerger import InputError, ModelReference, Problem, Settings, amount, list_directory, shown

from modelmerger_plugins.peft_adapters.section import BASE_KEY, DEFAULT, FILE, NAME, of_adapters, whole_key

OF_MODELS = (".safetensors", ".index.json", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".npz")
"""How names of weights end that a directory may hold itself."""
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_PART = r"adapter_model-\d{5}-of-\d{5}\.(safetensors|bin)"
"""What transformers calls the files of an adapter that it saves in several."""


def adapters_at(reference: ModelReference, settings: Settings | None) -> list[Path]:
    """The directories of the adapters that the config wants of a model; none where its directory is no adapter.

    Raises `InputError` for adapters that are not there, or that nothing names.
    """
    path, names = reference.local, of_adapters(settings).adapter_names
    if _is_base(reference) and not os.path.lexists(path / FILE) and _holds_weights(path):
        return []
    directories = [path if name == DEFAULT else path / name for name in names]
    present = [os.path.lexists(directory / FILE) for directory in directories]
    if not any(present) and not os.path.lexists(path / FILE):
        if below := _adapters_below(path):
            raise InputError(_below(path, below, whole_key(settings, f"{NAME}.adapter_names")))
        return []
    if not all(present):
        raise InputError(_absent(path, names[present.index(False)]))
    return directories


def _is_base(reference: ModelReference) -> bool:
    """Whether the config, or an adapter's own, names it as a base, in which trainers leave adapters in sub-folders."""
    return reference.where.endswith((".base_model", BASE_KEY, FILE)) or reference.where == "base_model"


def _holds_weights(path: Path) -> bool:
    return os.path.isdir(path) and any(name.endswith(OF_MODELS) for name in list_directory(path))


def _adapters_below(path: Path) -> list[str]:
    """The adapters in sub-folders of a directory that holds no weights itself."""
    names = list_directory(path) if os.path.isdir(path) else []
    if _holds_weights(path):
        return []
    return [name for name in names if os.path.lexists(path / name / FILE)]


def _below(path: Path, names: list[str], key: str) -> Problem:
    several = len(names) > 1
    found = ", ".join(f"'{shown(name, 40)}'" for name in names[:5]) + (", …" if len(names) > 5 else "")
    message = (
        f"holds no model, but the adapter{'s' if several else ''} {found} in {'' if several else 'a '}"
        f"sub-folder{'s' if several else ''}. Set {key}: [{shown(names[0], 40)}]."
    )
    return Problem(message, str(path))


def _absent(path: Path, name: str) -> Problem:
    there = [entry for entry in list_directory(path) if os.path.lexists(path / entry / FILE)]
    if os.path.lexists(path / FILE):
        there.insert(0, DEFAULT)
    found = ", ".join(map(shown, there))
    message = f"has no adapter {shown(name)!r}, which peft_config.adapter_names wants. It has: {found}."
    return Problem(message, str(path))


def weights_of(directory: Path) -> Path:
    """The file of an adapter's weights. Raises `InputError` where there is none, with what is there instead."""
    for name in WEIGHTS:
        if os.path.lexists(directory / name):
            return directory / name
    raise InputError(Problem(_without_weights(list_directory(directory)), str(directory)))


def _without_weights(present: Sequence[str]) -> str:
    """What to say of an adapter whose weights are not there, or not in one file. present: what its directory holds."""
    parts = [name for name in present if re.fullmatch(_PART, name)]
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
