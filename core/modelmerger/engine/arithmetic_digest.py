"""What this machine's arithmetic comes to: floats are added and multiplied in another order by other kernels."""

import functools

import torch
from blake3 import blake3

from modelmerger.engine.arithmetic import one_thread_each
from modelmerger.inputs.tensor_bytes import bytes_of
from modelmerger.output.shared.same_machine import ARITHMETIC
from modelmerger.planning.prepared import Prepared

_SIDE = 96


def with_digest(ready: Prepared) -> Prepared:
    """A merge whose plan has its digest, of which what this machine's arithmetic comes to is a part."""
    return ready.named(kernels())


def kernels() -> dict[str, str]:
    """The part of a plan's digest that is this machine's own."""
    return {ARITHMETIC: arithmetic_digest()}


@functools.cache
def arithmetic_digest() -> str:
    """A digest of a fixed product, dot and sum in float32 and float64: 64 hexadecimal digits."""
    numbers = torch.arange(_SIDE * _SIDE, dtype=torch.int64) * 2654435761 % (1 << 24)
    found = []
    with one_thread_each():
        for dtype in (torch.float32, torch.float64):
            values = (numbers.to(dtype) / (1 << 24) - 0.5).view(_SIDE, _SIDE)
            flat = values.flatten()
            found += [(values @ values.T).flatten(), torch.dot(flat, flat.flip(0)).view(1), flat.sum().view(1)]
    return blake3(b"".join(bytes(bytes_of(values.contiguous())) for values in found)).hexdigest()
