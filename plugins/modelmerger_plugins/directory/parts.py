"""What holds only a part of a model: the weights of an adapter, one file of several."""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from modelmerger import InputError, Problem, amount, list_directory, read_beside, read_json, shown

from modelmerger_plugins.adapter_names import ADAPTER_CONFIG, holds_adapter

INDEX_LIMIT = 512 << 20
_OF_GPUS = r"rank\d+\.safetensors|model-rank-\d+-part-\d+\.safetensors"
"""What TensorRT-LLM and vLLM call the files of a model, one or more for each GPU."""
_INDEX_OF_VARIANT = r".+\.index\.(?P<variant>[\w-]+)\.json"
_SHARD = r".*?(?P<number>\d{5})-of-(?P<count>\d{5})\.\w+"


def adapter_alone(path: Path, names: Collection[str]) -> Problem | None:
    """What to say of a file or directory whose tensors are an adapter's; None where they are a model's.

    names: of the tensors. A model may have adapters in it; what has at least as many of their tensors as of others is
    no model.
    """
    holds = holds_adapter(names)
    if not holds:
        return None
    directory = path if path.is_dir() else path.parent
    if os.path.lexists(directory / ADAPTER_CONFIG):
        return Problem(f"{holds} Give its directory, {shown(directory)}.", str(path))
    remedy = f"Put the {ADAPTER_CONFIG} beside them that they were saved with, and give the directory."
    return Problem(f"{holds} {remedy}", str(path))


def absent_files(path: Path, names: Collection[str], index: str) -> Problem | None:
    """What to say of a directory that lacks files which its index lists; None where all are there."""
    absent = [name for name in names if not os.path.lexists(path / name)]
    if not absent:
        return None
    message = (
        f"lacks {shown(absent[0], 60)}{f' and {len(absent) - 1:,} more' if absent[1:] else ''} of "
        f"{amount(len(names), 'file')} that {index} lists. Run the download again, until it is whole."
    )
    return Problem(message, str(path))


def one_shard(path: Path) -> Problem | None:
    """What to say of a file that is one of several that hold a model; None where it may be all of one."""
    others = shard_count(path.name) or _indexed(path)
    if others < 2:
        return None
    message = f"is one of {others} files that hold a model together. Give their directory, {shown(path.parent)}."
    return Problem(message, str(path))


def several(path: Path, names: Sequence[str], kind: str, index: str) -> Problem:
    """What to say of a directory with several files of weights and no index. kind: of files, as messages call it."""
    said = f"has {len(names)} {kind} files and no {index}"
    if all(re.fullmatch(_OF_GPUS, name) for name in names):
        remedy = "They are parts for several GPUs (TensorRT-LLM, vLLM): give the model that they were made from."
        return Problem(f"{said}. {remedy}", str(path))
    found = next((match for name in list_directory(path) if (match := re.fullmatch(_INDEX_OF_VARIANT, name))), None)
    if found is not None:
        variant = shown(found["variant"], 30)
        remedy = (
            f"Load it with from_pretrained(…, variant='{variant}'), call save_pretrained, and give what that wrote."
        )
        return Problem(f"{said}, but {shown(found[0], 60)}, of a variant. {remedy}", str(path))
    return Problem(f"{said}, so it is unclear which belong together. Add the index.", str(path))


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
