"""Lays out the merged weights as safetensors files, sharded as transformers does it."""

import json
from collections.abc import Sequence
from itertools import accumulate

from modelmerger import Layout, OutputFile, OutputTensor, Placement, hookimpl
from modelmerger.dtypes import DTYPES
from modelmerger.safetensors_header import MOST_HEADER_BYTES, build_header

INDEX = "model.safetensors.index.json"
ENTRY = 100
"""Bytes in a header for a tensor, but for its name and shape."""


@hookimpl(trylast=True)
def save_model(tensors: Sequence[OutputTensor], max_shard_size: int) -> Layout:
    """Tensors fill shards in order; one larger than a shard gets its own. Wide elements come first in a file, so all align."""
    shards = _shards(tensors, max_shard_size)
    names = _names(len(shards))
    files = [_file(name, shard) for name, shard in zip(names, shards, strict=True)]
    if len(files) == 1:
        return Layout("safetensors", files)
    weight_map = {p.tensor.name: file.name for file in files for p in file.placements}
    index = {
        "metadata": {"total_size": sum(tensor.bytes for tensor in tensors)},
        "weight_map": dict(sorted(weight_map.items())),
    }
    return Layout("safetensors", files, {INDEX: (json.dumps(index, ensure_ascii=False, indent=2) + "\n").encode()})


def _shards(tensors: Sequence[OutputTensor], most: int) -> list[list[OutputTensor]]:
    """Shards of at most `most` bytes of tensors, and of names enough for half of the header that readers accept."""
    shards: list[list[OutputTensor]] = [[]]
    size = described = 0
    for tensor in tensors:
        entry = ENTRY + len(tensor.name.encode(errors="replace")) + 20 * len(tensor.shape)
        if shards[-1] and (size + tensor.bytes > most or described + entry > MOST_HEADER_BYTES // 2):
            shards.append([])
            size = described = 0
        shards[-1].append(tensor)
        size += tensor.bytes
        described += entry
    return shards


def _names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]


def _file(name: str, tensors: Sequence[OutputTensor]) -> OutputFile:
    ordered = sorted(tensors, key=lambda tensor: -DTYPES[tensor.dtype].bits)
    ends = list(accumulate(tensor.bytes for tensor in ordered))
    begins = [0, *ends[:-1]] if ends else []
    header = build_header(
        [(t.name, t.dtype, t.shape, b, e) for t, b, e in zip(ordered, begins, ends, strict=True)], {"format": "pt"}
    )
    placements = [Placement(tensor, len(header) + begin) for tensor, begin in zip(ordered, begins, strict=True)]
    return OutputFile(name, len(header) + (ends[-1] if ends else 0), ((0, header),), placements)
