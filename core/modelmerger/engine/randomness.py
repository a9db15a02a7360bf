"""Random numbers that belong to elements: slices, workers, devices, their order and interruptions do not matter.

The generator is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators",
https://doi.org/10.1145/2660193.2660195) as a function of a counter: word i is the mix of `(a + i·γ) xor b`. γ is the
golden gamma; a and b, of 64 bits each, are a digest of the seed, the tensor's name and the model.
"""

import functools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from attrs import frozen
from blake3 import blake3

Precision = Literal["float32", "float64"]
"""The dtype of the numbers."""
GAMMA = 0x9E3779B97F4A7C15
MIXES = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
LAST_SHIFT = np.uint64(31)
WORDS = 1 << 15
"""Words that are made at a time: more do not stay in a core's cache, and fewer cost more calls than arithmetic."""
STEPS = np.arange(WORDS, dtype=np.uint64) * np.uint64(GAMMA)
"""i·γ, modulo 2⁶⁴."""


@frozen
class ElementNumbers:
    """Uniform random numbers for some elements of a flattened tensor."""

    seed: int
    """The `seed` of the config."""
    tensor: str
    """The tensor's name in the output."""
    runs: Sequence[tuple[int, int]]
    """Ranges of elements, each from its first to the one behind its last."""
    shape: tuple[int, ...]
    """The shape that a strategy sees the elements in."""
    device: torch.device
    """The device that it sees them on."""
    models: Collection[int]
    """The models that have numbers here, by their index in the config."""

    def __call__(self, model: int, precision: Precision = "float32", below: float | None = None) -> torch.Tensor:
        """One number in [0, 1) for each element, a multiple of 2⁻²⁴ (float64: 2⁻⁵³). model: its index in the config.

        below: gives 1 for each number that is less than this one, rounded to their dtype, and 0 for the others.
        """
        if type(model) is not int or model not in self.models:
            here = ", ".join(map(str, sorted(self.models)))
            raise ValueError(f"there are random numbers of the models {here} here, and none of {model!r}")
        if precision not in ("float32", "float64"):
            raise ValueError(f"random numbers are 'float32' or 'float64', not {precision!r}")
        if precision == "float32":
            draw = functools.partial(_of_halves, _fraction if below is None else _comparison(below))
        else:
            draw = functools.partial(_float64, below)
        key = _key(self.seed, self.tensor, model)
        numbers = [draw(key, first, last) for first, last in self.runs]
        drawn = torch.from_numpy(numbers[0] if len(numbers) == 1 else np.concatenate(numbers))
        return drawn.view(self.shape).to(self.device)


@functools.lru_cache(maxsize=256)
def _key(seed: int, tensor: str, model: int) -> tuple[int, int]:
    digest = blake3(repr((seed, tensor, model)).encode(errors="surrogatepass")).digest(length=16)
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def _float64(below: float | None, key: tuple[int, int], first: int, last: int) -> np.ndarray:
    """Element i has the upper 53 bits of word i of the stream."""
    numbers = np.empty(last - first)
    for start, words in _words(key, first, last):
        place = numbers[start - first : start - first + len(words)]
        np.right_shift(words, np.uint64(11), out=words)
        np.multiply(words, 2.0**-53, out=place)
    return numbers if below is None else np.less(numbers, below, out=numbers)


Halves = Callable[[np.ndarray, np.ndarray], object]
"""Makes what is asked for of half-words, which may be changed, and puts it into the second array."""


def _of_halves(make: Halves, key: tuple[int, int], first: int, last: int) -> np.ndarray:
    """Element i has half-word i of the stream, the lower half of a word first."""
    numbers = np.empty(last - first, np.float32)
    for start, words in _words(key, first // 2, -(-last // 2)):
        halves = words.astype("<u8", copy=False).view("<u4")[max(0, first - 2 * start) : last - 2 * start]
        begin = max(first, 2 * start) - first
        make(halves, numbers[begin : begin + len(halves)])
    return numbers


def _fraction(halves: np.ndarray, numbers: np.ndarray) -> None:
    """The upper 24 bits as a fraction."""
    np.right_shift(halves, np.uint32(8), out=halves)
    np.copyto(numbers, halves.view("<i4"), casting="unsafe")  # they have 24 bits, and signed ones convert faster
    np.multiply(numbers, np.float32(2**-24), out=numbers)


def _comparison(below: float) -> Halves:
    """1 where that fraction is less than a number, else 0: found from whole numbers, without the fractions."""
    first = min(2**24, max(0, math.ceil(float(np.float32(below)) * 2**24)))
    if first == 0:
        return lambda _, numbers: numbers.fill(0)
    last = np.uint32((first << 8) - 1)
    return lambda halves, numbers: np.less_equal(halves, last, out=numbers)


def _words(key: tuple[int, int], first: int, last: int) -> Iterator[tuple[int, np.ndarray]]:
    """Words `first` to `last` of the stream of a key, in parts, each with its first word; the memory is used again."""
    made, spare = np.empty((2, WORDS), np.uint64)
    origin, other = key[0], np.uint64(key[1])
    for start in range(first, last, WORDS):
        count = min(WORDS, last - start)
        words, shifted = made[:count], spare[:count]
        np.add(STEPS[:count], np.uint64((origin + start * GAMMA) & (2**64 - 1)), out=words)
        np.bitwise_xor(words, other, out=words)
        for shift, factor in MIXES:
            np.right_shift(words, shift, out=shifted)
            np.bitwise_xor(words, shifted, out=words)
            np.multiply(words, factor, out=words)
        np.right_shift(words, LAST_SHIFT, out=shifted)
        np.bitwise_xor(words, shifted, out=words)
        yield start, words
