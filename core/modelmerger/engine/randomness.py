"""Random numbers that belong to elements: slices, workers, devices, their order and interruptions do not matter.

The generator is numpy's Philox 4×64 with ten rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3",
https://doi.org/10.1145/2063384.2063405), whose raw stream numpy promises not to change. It is a function of a key,
which depends on the seed, the tensor's name and the model, and of a counter, which depends on the element.
"""

from collections.abc import Collection
from typing import Literal

import numpy as np
import torch
from attrs import frozen
from blake3 import blake3

Precision = Literal["float32", "float64"]
"""The dtype of the numbers."""
COUNTED = 4
"""Words of 64 bits that Philox makes from one value of its counter."""


@frozen
class ElementNumbers:
    """Uniform random numbers for some consecutive elements of a flattened tensor."""

    seed: int
    """The `seed` of the config."""
    tensor: str
    """The tensor's name in the output."""
    first: int
    """The first element."""
    last: int
    """The element behind the last one."""
    shape: tuple[int, ...]
    """The shape that a strategy sees the elements in."""
    device: torch.device
    """The device that it sees them on."""
    models: Collection[int]
    """The models that have numbers here, by their index in the config."""

    def __call__(self, model: int, precision: Precision = "float32") -> torch.Tensor:
        """One number in [0, 1) for each element, a multiple of 2⁻²⁴ (float64: 2⁻⁵³). model: its index in the config."""
        if type(model) is not int or model not in self.models:
            here = ", ".join(map(str, sorted(self.models)))
            raise ValueError(f"there are random numbers of the models {here} here, and none of {model!r}")
        if precision not in ("float32", "float64"):
            raise ValueError(f"random numbers are 'float32' or 'float64', not {precision!r}")
        draw = _float32 if precision == "float32" else _float64
        drawn = torch.from_numpy(draw(self._key(model), self.first, self.last))
        return drawn.view(self.shape).to(self.device)

    def _key(self, model: int) -> np.ndarray:
        digest = blake3(repr((self.seed, self.tensor, model)).encode(errors="surrogatepass")).digest(length=16)
        return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def _float64(key: np.ndarray, first: int, last: int) -> np.ndarray:
    """Element i has the upper 53 bits of word i of the stream."""
    return (_words(key, first, last) >> np.uint64(11)) * 2.0**-53


def _float32(key: np.ndarray, first: int, last: int) -> np.ndarray:
    """Element i has the upper 24 bits of half-word i of the stream, the lower half of a word first."""
    begin = first // 2
    halves = (
        _words(key, begin, -(-last // 2)).astype("<u8", copy=False).view("<u4")[first - 2 * begin : last - 2 * begin]
    )
    return (halves >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def _words(key: np.ndarray, first: int, last: int) -> np.ndarray:
    """Words `first` to `last` of the stream of a key."""
    begin = first // COUNTED
    philox = np.random.Philox(key=key)
    philox.advance(begin)
    return philox.random_raw(last - begin * COUNTED)[first - begin * COUNTED :]
