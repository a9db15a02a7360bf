"""Directories that transformers can load: full models in safetensors, and adapters, once they are folded into their base."""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelmerger.inputs import strict_json
from modelmerger.inputs.loading import read_beside
from modelmerger.values.errors import InputError, Problem, UnmeasurableError

ADAPTER = "adapter_config.json"


def loadable(directory: Path, folding: Mapping[str, Any], target: Path) -> Path:
    """The directory itself, or `target`, where an adapter was folded into its base by a merge of one model.

    PEFT would import what an adapter's config names; the merge does not. folding: what the config of that merge says besides.
    Raises `UnmeasurableError` for what transformers cannot load, and `MergeError` for adapters that cannot be folded.
    """
    if _is_adapter(directory):
        _fold(directory, folding, target)
        directory = target
    check_loadable(directory, folding)
    return directory


def check_loadable(directory: Path, folding: Mapping[str, Any]) -> None:
    """Raises what `loadable` would raise, as far as headers and configs say it, and writes nothing."""
    if _is_adapter(directory):
        from modelmerger.run import check

        check(_alone(directory, folding))
    elif reason := _unloadable(directory):
        raise UnmeasurableError(Problem(reason, str(directory)))


def _is_adapter(directory: Path) -> bool:
    return os.path.lexists(directory / ADAPTER)


def _alone(adapter: Path, folding: Mapping[str, Any]) -> dict[str, Any]:
    return {"strategy": "weighted", "models": [{"path": str(adapter)}], **folding}


def _fold(adapter: Path, folding: Mapping[str, Any], target: Path) -> None:
    from modelmerger.run import run_merge

    log = logging.getLogger("modelmerger")
    level = log.level
    try:
        run_merge(_alone(adapter, folding), target)
    finally:
        log.setLevel(level)  # the merge sets its own


def _unloadable(directory: Path) -> str:
    if not directory.is_dir():
        return "is no directory, and transformers loads models from directories alone."
    config = read_beside(directory, "config.json")
    if config is None:
        return "has no config.json, so transformers cannot load it."
    if not any(directory.glob("*.safetensors")):
        return "has no safetensors weights, and no others are loaded."
    try:
        kernels = sorted(_kernels(strict_json.read(config, "config.json")))
    except InputError as error:
        return f"has a config.json that {error.problems[0].message}"
    return f"wants code from a repository ({', '.join(kernels)}), and none is run." if kernels else ""


def _kernels(config: Any) -> Iterator[str]:
    """What a config says of attention or experts that transformers would download and run: `org/name`."""
    if isinstance(config, list):
        for item in config:
            yield from _kernels(item)
    elif isinstance(config, Mapping):
        for key, value in config.items():
            if key.lstrip("_").startswith(("attn_implementation", "experts_implementation")) and "/" in str(value):
                yield f"{key}: {value}"
            yield from _kernels(value)
