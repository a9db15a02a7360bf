"""config.json and generation_config.json of the merged model: true about dtype and sizes, and without code."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelmerger import (
    DTYPES,
    WHOLE_MODEL,
    Checkpoint,
    InputError,
    MergePlan,
    Problem,
    Settings,
    TensorInfo,
    executable_keys,
    hookimpl,
    is_executable,
    read_beside,
    read_json,
)

from modelmerger_plugins.model_config.quantisation import is_left_over, without_quantisation
from modelmerger_plugins.model_config.true_sizes import KEY, false_sizes, with_sizes
from modelmerger_plugins.special_floats import MAY_BE_INFINITE, bare

DTYPE_KEYS = ("dtype", "torch_dtype")
PLACE, HUB_ID = "_name_or_path", r"(\w[\w.-]*/)?\w[\w.-]*|"
"""Where transformers says that a model was loaded from, and the form of the names of others."""
CONFIG = "config.json"
CODE_OF_THE_MODEL = "auto_map"
ADVICE = (
    "Copy configuration_*.py and modeling_*.py of the donor into the output and put auto_map back, if you trust them."
)
SAYS_HOW = "_autoset"
"""How keys end that only say whether an implementation was chosen by transformers itself; nothing is lost with them."""
GENERATION, GENERATION_LIMIT = "generation_config.json", 16 << 20


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint], settings: Settings) -> Iterable[Problem]:
    """Warns about keys that are left out of the config because they could make a loader run code.

    Notes where a config says something else than the weights. Errors are for files that cannot be copied.
    """
    donor = checkpoints[settings.donor]
    if donor.donor.directory is not None and not settings.where and os.path.lexists(donor.donor.directory / GENERATION):
        yield from _in_generation(donor.donor.directory)
    keys = sorted(executable_keys(donor.donor.config or {}))
    found = [key for key in keys if not key.endswith(SAYS_HOW)]
    if not settings.where and found:
        message = f"{', '.join(found)} can make a loader run code, and is left out of the merged model's config."
        if CODE_OF_THE_MODEL in found:
            message += f" {ADVICE}"
        yield Problem(message, f"{donor.place}/config.json", severity="warning")
    for checkpoint in checkpoints:
        yield from _corrections(checkpoint, checkpoint is donor)


def _corrections(checkpoint: Checkpoint, is_donor: bool) -> Iterator[Problem]:
    """Notes on what the weights know better than the config."""
    config, place = checkpoint.donor.config or {}, f"{checkpoint.place}/config.json"
    for path, (claimed, rows) in false_sizes(config, checkpoint.tensors).items():
        end = f", and the merged model's config says {rows:,}" if is_donor else ""
        message = f"{'.'.join((*path, KEY))} is {claimed:,}, where the embedding has {rows:,} rows. These count{end}."
        yield Problem(message, place, severity="note")
    if is_donor and is_left_over(config, checkpoint.tensors):
        message = "quantization_config is left out of the merged model's config: no weight is quantised."
        yield Problem(message, place, severity="note")


@hookimpl
def adjust_config(name: str, config: Mapping[str, Any], plan: MergePlan) -> Mapping[str, Any] | None:
    """The size of the vocabulary as it is, at every level, and no quantisation where there is none."""
    if name != CONFIG:
        return None
    tensors = {tensor.name: TensorInfo(tensor.dtype, tensor.shape) for tensor in plan.tensors}
    told = without_quantisation(config) if is_left_over(config, tensors) else config
    return with_sizes(told, false_sizes(told, tensors))


@hookimpl
def write_sidecars(
    plan: MergePlan, checkpoints: Sequence[Checkpoint], configs: Mapping[str, Mapping[str, Any]], settings: Settings
) -> Mapping[str, bytes]:
    """The donor's configs as plugins adjusted them, if it has any, and if a whole model is written."""
    if plan.writes != WHOLE_MODEL:
        return {}
    files = {}
    if CONFIG in configs:
        config = _cleaned(configs[CONFIG], _main_dtype(plan))
        files[CONFIG] = _encoded(config if settings.options.record_paths else _without_places(config))
    stored = _stored_generation(checkpoints[plan.donor].donor.directory)
    if stored is not None and _says(stored, configs.get(GENERATION)):
        files[GENERATION] = stored
    elif GENERATION in configs:
        files[GENERATION] = _encoded(bare(configs[GENERATION]))  # of generation, transformers reads no objects
    return files


def _in_generation(directory: Path) -> Iterable[Problem]:
    """What stands against copying the generation config of a directory."""
    try:
        content = read_beside(directory, GENERATION, GENERATION_LIMIT) or b""
        value = read_json(content, str(directory / GENERATION), infinite=MAY_BE_INFINITE)
    except InputError as error:
        yield from error.problems
        return
    if not isinstance(value, dict):
        yield Problem("is not a JSON object. Mend it, or remove it.", str(directory / GENERATION))


def _stored_generation(directory: Path | None) -> bytes | None:
    return None if directory is None else read_beside(directory, GENERATION, GENERATION_LIMIT)


def _says(stored: bytes, config: Mapping[str, Any] | None) -> bool:
    """Whether the file says just this, so that its bytes can stay. None: nobody could read it, or adjust it."""
    return config is None or read_json(stored, GENERATION, infinite=MAY_BE_INFINITE) == config


def _encoded(config: Any) -> bytes:
    """JSON in UTF-8. Half a surrogate pair, which JSON allows and UTF-8 does not, stays an escape."""
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def _without_places(value: Any) -> Any:
    """The config without what its writer was loaded from, at any depth, unless that is a Hub id. No loader reads it."""
    if isinstance(value, list):
        return [_without_places(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    kept = {key: _without_places(item) for key, item in value.items()}
    if PLACE in kept and not (isinstance(kept[PLACE], str) and re.fullmatch(HUB_ID, kept[PLACE])):
        del kept[PLACE]
    return kept


def _main_dtype(plan: MergePlan) -> str | None:
    """The dtype of most floating weights, as configs spell it. Float8 counts only if there is no wider dtype.

    Beside wider weights, float8 ones are quantised.
    """
    sizes, apart = Counter[str](), plan.layout.apart
    for file in plan.layout.files:
        for placement in file.placements:
            if DTYPES[placement.tensor.dtype].family == "float" and placement.tensor.name not in apart:
                sizes[placement.tensor.dtype] += placement.tensor.bytes
    if wide := Counter({dtype: size for dtype, size in sizes.items() if DTYPES[dtype].bits > 8}):
        sizes = wide
    return DTYPES[sizes.most_common(1)[0][0]].torch_name if sizes else None


def _cleaned(value: Any, dtype: str | None) -> Any:
    """The config without keys that name code, at any depth, and with dtype keys set to the written dtype."""
    if isinstance(value, list):
        return [_cleaned(item, dtype) for item in value]
    if not isinstance(value, Mapping):
        return value
    cleaned = {key: _cleaned(item, dtype) for key, item in value.items() if not is_executable(key)}
    for key in DTYPE_KEYS:
        if dtype and isinstance(spelled := cleaned.get(key), str):
            cleaned[key] = f"torch.{dtype}" if spelled.startswith("torch.") else dtype
    return cleaned
