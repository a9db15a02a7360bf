"""What holds only a part of a model: the weights of an adapter, one file of several."""

import os
import re
from collections.abc import Collection
from pathlib import Path

from modelmerger import InputError, Problem, list_directory, read_beside, read_json, shown

FACTORS = (
    *("lora_", "ia3_", "hada_", "lokr_", "vera_", "oft_", "boft_", "hra_", "randlora_", "fourierft_", "waveft_"),
    *("bone_", "miss_", "road_", "shira_", "c3a_", "ln_tuning_", "trainable_tokens_", "prompt_embeddings"),
)
"""How the parts of names begin that adapters alone have."""
WRAPPED = "base_layer"
"""The part of a name that a model has whose adapters are in it and not folded: they are as much a part of it."""
ADAPTER_CONFIG = "adapter_config.json"
INDEX_LIMIT = 512 << 20
_SHARD = r".*?(?P<number>\d{5})-of-(?P<count>\d{5})\.\w+"


def adapter_alone(path: Path, names: Collection[str]) -> Problem | None:
    """What to say of a file or directory whose tensors are an adapter's; None where they are a model's.

    names: of the tensors. A model may have adapters in it; what has at least as many of their tensors as of others is
    no model.
    """
    every = "\n".join(names)
    if not any(factor in every for factor in FACTORS):  # as in most models
        return None
    parts = [name.split(".") for name in names]
    factors = [part for name in parts if (part := next((p for p in name if p.startswith(FACTORS)), None)) is not None]
    if not factors or 2 * len(factors) < len(parts) or any(WRAPPED in name for name in parts):
        return None
    kinds = ", ".join(shown(part, 30) for part in sorted(set(factors))[:2])
    holds = f"holds the weights of an adapter ({kinds}) and of no model."
    directory = path if path.is_dir() else path.parent
    if os.path.lexists(directory / ADAPTER_CONFIG):
        return Problem(f"{holds} Give its directory, {shown(directory)}.", str(path))
    remedy = f"Put the {ADAPTER_CONFIG} beside them that they were saved with, and give the directory."
    return Problem(f"{holds} {remedy}", str(path))


def one_shard(path: Path) -> Problem | None:
    """What to say of a file that is one of several that hold a model; None where it may be all of one."""
    others = shard_count(path.name) or _indexed(path)
    if others < 2:
        return None
    message = f"is one of {others} files that hold a model together. Give their directory, {shown(path.parent)}."
    return Problem(message, str(path))


def shard_count(name: str) -> int:
    """How many files the name of a file says that there are; 0 where it says nothing, or that it is the only one."""
    number = re.fullmatch(_SHARD, name)
    count = int(number["count"]) if number is not None else 0
    return count if count > 1 else 0


def _indexed(path: Path) -> int:
    """How many files an index beside the file lists, if the file is one of them; else 0."""
    for name in list_directory(path.parent):
        if name.endswith(f"{path.suffix}.index.json"):
            try:
                files = set(
                    read_json(read_beside(path.parent, name, INDEX_LIMIT) or b"{}", name)["weight_map"].values()
                )
            except (InputError, TypeError, KeyError, AttributeError):
                continue
            if path.name in files:
                return len(files)
    return 0
