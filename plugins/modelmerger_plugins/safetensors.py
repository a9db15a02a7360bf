"""Lays out the merged weights as safetensors files, in shards as transformers makes them."""

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
"""Bytes of a header for a tensor, without its name and shape."""


@hookimpl(trylast=True)
def save_model(tensors: Sequence[OutputTensor], max_shard_size: int, stem: str) -> Layout:
    """Tensors fill shards in order; one larger than a shard gets its own. Wide elements come first, so all align."""
    parts = [part for shard in split_into_shards(tensors, max_shard_size) for part in _cut(shard)]
    files = [_file(name, part) for name, part in zip(shard_names(stem, SUFFIX, len(parts)), parts, strict=True)]
    return Layout("safetensors", files, weight_index(f"{stem}{SUFFIX}.index.json", files))


def _cut(shard: list[OutputTensor]) -> list[list[OutputTensor]]:
    """The shard, cut where its header would take more than half of what readers accept."""
    parts: list[list[OutputTensor]] = [[]]
    header = 0
    for tensor in shard:
        entry = ENTRY + len(tensor.name.encode(errors="replace")) + 20 * len(tensor.shape)
        if parts[-1] and header + entry > MOST_HEADER_BYTES // 2:
            parts.append([])
            header = 0
        parts[-1].append(tensor)
        header += entry
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
