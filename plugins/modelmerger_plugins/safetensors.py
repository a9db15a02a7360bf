"""Lays out the merged weights as safetensors files, sharded as transformers does it."""

from collections.abc import Sequence
from itertools import accumulate

from modelmerger import (
    DTYPES,
    MOST_HEADER_BYTES,
    Layout,
    OutputFile,
    OutputTensor,
    Placement,
    build_header,
    hookimpl,
    shard_names,
    split_into_shards,
    weight_index,
)

SUFFIX = ".safetensors"
ENTRY = 100
"""Bytes in a header for a tensor, but for its name and shape."""


@hookimpl(trylast=True)
def save_model(tensors: Sequence[OutputTensor], max_shard_size: int, stem: str) -> Layout:
    """Tensors fill shards in order; one larger than a shard gets its own. Wide elements come first in a file, so all align."""
    parts = [part for shard in split_into_shards(tensors, max_shard_size) for part in _described(shard)]
    files = [_file(name, part) for name, part in zip(shard_names(stem, SUFFIX, len(parts)), parts, strict=True)]
    return Layout("safetensors", files, weight_index(f"{stem}{SUFFIX}.index.json", files))


def _described(shard: list[OutputTensor]) -> list[list[OutputTensor]]:
    """The shard, cut where its header would take more than half of what readers accept."""
    parts: list[list[OutputTensor]] = [[]]
    described = 0
    for tensor in shard:
        entry = ENTRY + len(tensor.name.encode(errors="replace")) + 20 * len(tensor.shape)
        if parts[-1] and described + entry > MOST_HEADER_BYTES // 2:
            parts.append([])
            described = 0
        parts[-1].append(tensor)
        described += entry
    return parts


def _file(name: str, tensors: Sequence[OutputTensor]) -> OutputFile:
    ordered = sorted(tensors, key=lambda tensor: -DTYPES[tensor.dtype].bits)
    ends = list(accumulate(tensor.bytes for tensor in ordered))
    begins = [0, *ends[:-1]] if ends else []
    header = build_header(
        [(t.name, t.dtype, t.shape, b, e) for t, b, e in zip(ordered, begins, ends, strict=True)], {"format": "pt"}
    )
    placements = [Placement(tensor, len(header) + begin) for tensor, begin in zip(ordered, begins, strict=True)]
    return OutputFile(name, len(header) + (ends[-1] if ends else 0), ((0, header),), placements)
