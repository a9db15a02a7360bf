"""config.json and generation_config.json of the merged model: the donor's, with the dtype made true and no way to run code."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelmerger import Checkpoint, MergePlan, Problem, hookimpl, read_beside
from modelmerger.dtypes import DTYPES

DTYPE_KEYS = ("dtype", "torch_dtype")
EXECUTABLE = ("auto_map", "trust_remote_code")
EXECUTABLE_PREFIX = "_attn_implementation"


@hookimpl
def check_compatibility(checkpoints: Sequence[Checkpoint]) -> Iterable[Problem]:
    """Says what will be left out of the config because it could make a loader run code."""
    for checkpoint in checkpoints:
        if found := sorted(set(_executable_keys(checkpoint.donor.config or {}))):
            message = f"{', '.join(found)} can make a loader run code, and is left out of the merged model's config."
            yield Problem(message, f"{checkpoint.place}/config.json", severity="warning")


@hookimpl
def write_sidecars(plan: MergePlan, checkpoints: Sequence[Checkpoint]) -> Mapping[str, bytes]:
    """The donor's configs. A donor without config.json gives none."""
    donor = checkpoints[plan.donor].donor
    files = {}
    if donor.config is not None:
        config = _cleaned(donor.config, _main_dtype(plan))
        files["config.json"] = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
    if donor.directory is not None:
        generation = read_beside(donor.directory, "generation_config.json")
        if generation is not None:
            files["generation_config.json"] = generation
    return files


def _main_dtype(plan: MergePlan) -> str | None:
    """The dtype of most of the floating weights, as configs spell it."""
    sizes: Counter[str] = Counter()
    for file in plan.layout.files:
        for placement in file.placements:
            if DTYPES[placement.tensor.dtype].family == "float":
                sizes[placement.tensor.dtype] += placement.tensor.bytes
    return DTYPES[sizes.most_common(1)[0][0]].torch_name if sizes else None


def _cleaned(value: Any, dtype: str | None) -> Any:
    """The config at every level without keys that name code, its dtype keys set to what is written, in their own spelling."""
    if isinstance(value, list):
        return [_cleaned(item, dtype) for item in value]
    if not isinstance(value, Mapping):
        return value
    cleaned = {key: _cleaned(item, dtype) for key, item in value.items() if not _is_executable(key)}
    for key in DTYPE_KEYS:
        if dtype and isinstance(spelled := cleaned.get(key), str):
            cleaned[key] = f"torch.{dtype}" if spelled.startswith("torch.") else dtype
    return cleaned


def _executable_keys(value: Any) -> Iterable[str]:
    if isinstance(value, list):
        for item in value:
            yield from _executable_keys(item)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if _is_executable(key):
                yield key
            yield from _executable_keys(item)


def _is_executable(key: str) -> bool:
    return key in EXECUTABLE or key.startswith(EXECUTABLE_PREFIX)
