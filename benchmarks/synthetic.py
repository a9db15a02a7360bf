"""Write synthetic checkpoints of real shapes: random bfloat16 weights, several shards, an index, a config.json.

    python benchmarks/synthetic.py SHAPE NUMBER DIRECTORY

Model 0 is the base; every other number is the base with a change of a tenth of its scale, as a fine-tune is. All values
come from one block of 64 MiB per model, read at another offset for each tensor, so that writing is as fast as the disk.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from shapes import BYTES_PER_ELEMENT, SHAPES, Shape

SHARDS = 3
BLOCK = 32 * 2**20  # elements
SCALE = 0.02  # standard deviation of weight matrices
CHANGE = 0.1  # of a fine-tune, relative to SCALE: the cosine of two fine-tunes is about 0.99
OFFSET_STEP = 6_700_417  # prime, so that tensors start at different elements of the block

Bits = NDArray[np.uint16]
Entry = tuple[str, tuple[int, ...]]


def to_bfloat16(values: NDArray[np.float32]) -> Bits:
    """Round to nearest even; finite values only."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def to_float32(bits: Bits) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def make_block(number: int) -> Bits:
    values = np.random.default_rng(0).standard_normal(BLOCK, dtype=np.float32)
    if number:
        values += CHANGE * np.random.default_rng(number).standard_normal(BLOCK, dtype=np.float32)
    values *= SCALE
    return to_bfloat16(values)


def pieces(block: Bits, start: int, count: int) -> Iterator[Bits]:
    """`count` elements of the endless repetition of `block`, from element `start`."""
    start %= BLOCK
    while count > 0:
        piece = block[start : start + count]
        yield piece
        count, start = count - len(piece), 0


def shards(shape: Shape) -> list[list[Entry]]:
    limit = shape.bytes / SHARDS
    found: list[list[Entry]] = [[]]
    size = 0
    for name, dimensions in shape.tensors():
        if size > limit * len(found):
            found.append([])
        found[-1].append((name, dimensions))
        size += prod(dimensions) * BYTES_PER_ELEMENT
    return found


def header(entries: list[Entry]) -> bytes:
    described: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dimensions in entries:
        start, end = end, end + prod(dimensions) * BYTES_PER_ELEMENT
        described[name] = {"dtype": "BF16", "shape": dimensions, "data_offsets": [start, end]}
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_tensor(file: BinaryIO, name: str, count: int, block: Bits, start: int) -> None:
    for piece in pieces(block, start, count):
        bits = to_bfloat16(1 + 5 * to_float32(piece)) if name.endswith("norm.weight") else piece
        file.write(bits.data)


def write_model(shape: Shape, number: int, directory: Path) -> None:
    """Write the model; `directory` appears when it is complete."""
    block = make_block(number)
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weight_map: dict[str, str] = {}
    groups = shards(shape)
    for place, entries in enumerate(groups, 1):
        file_name = f"model-{place:05}-of-{len(groups):05}.safetensors"
        with (partial / file_name).open("wb") as file:
            file.write(header(entries))
            for name, dimensions in entries:
                write_tensor(file, name, prod(dimensions), block, OFFSET_STEP * len(weight_map))
                weight_map[name] = file_name
            file.flush()
            os.fsync(file.fileno())
    index = {"metadata": {"total_size": shape.bytes}, "weight_map": weight_map}
    (partial / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (partial / "config.json").write_text(json.dumps(shape.config(), indent=2))
    partial.rename(directory)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in SHAPES:
        raise SystemExit(f"usage: synthetic.py {{{','.join(SHAPES)}}} NUMBER DIRECTORY")
    write_model(SHAPES[sys.argv[1]], int(sys.argv[2]), Path(sys.argv[3]))
