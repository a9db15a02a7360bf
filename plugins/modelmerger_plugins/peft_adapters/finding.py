"""Whether a path holds adapters, which is looked at before anything else of this plugin is imported."""

import os
from pathlib import Path

from modelmerger import InputError, ModelReference, Problem, Settings, list_directory, shown

from modelmerger_plugins.peft_adapters.section import DEFAULT, FILE, NAME, of_adapters, whole_key

OF_MODELS = (".safetensors", ".index.json", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".npz")
"""How names of weights end that a directory may hold itself."""


def adapters_at(reference: ModelReference, settings: Settings | None) -> list[Path]:
    """The directories of the adapters that the config wants of a model; none where its directory is no adapter.

    Raises `InputError` for adapters that are not there, or that nothing names.
    """
    path, names = reference.local, of_adapters(settings).adapter_names
    directories = [path if name == DEFAULT else path / name for name in names]
    present = [os.path.lexists(directory / FILE) for directory in directories]
    if not any(present) and not os.path.lexists(path / FILE):
        if below := _adapters_below(path):
            raise InputError(_below(path, below, whole_key(settings, f"{NAME}.adapter_names")))
        return []
    if not all(present):
        raise InputError(_absent(path, names[present.index(False)]))
    return directories


def _adapters_below(path: Path) -> list[str]:
    """The adapters in sub-folders of a directory that holds no weights itself."""
    names = list_directory(path) if os.path.isdir(path) else []
    if any(name.endswith(OF_MODELS) for name in names):
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
