"""TIES: the largest elements of each task vector, and of these those that agree with the elected sign, are averaged.

Yadav et al. 2023, "TIES-Merging", https://arxiv.org/abs/2306.01708, algorithm 1. The threshold is exact: a histogram of
the upper half of the float32 bits of the magnitudes, whose order is that of the numbers, then one of the lower half
inside of the bin in which the threshold lies.
"""

import math

import torch
from attrs import frozen
from modelmerger import Traits, hookimpl, must_be_between, varying

traits = Traits(models=(1, None), inputs="updates", rounds=2)
BINS = 1 << 16


@frozen(kw_only=True)
class ModelOptions:
    density: float = varying(default=0.2, check=must_be_between(0, 1, open_below=True))


def bits(tensor):
    return tensor.abs().float().view(torch.int32)


def bin_of(counts, rank):
    """The bin that holds the element of this rank, and its rank in there. The largest has rank 1."""
    above = counts.flip(0).cumsum(0)
    place = int((above >= rank).int().argmax())
    return BINS - 1 - place, rank - (int(above[place - 1]) if place else 0)


def upper_half(counts, told, shape):
    return bin_of(counts, max(1, round(told.density * math.prod(shape))))


@hookimpl
def measure_tensor(tensors, round, measurements, model_options, shape):
    counts = []
    for number, (tensor, told) in enumerate(zip(tensors, model_options, strict=True)):
        found = bits(tensor)
        if round == 0:
            counts.append(torch.bincount(found >> 16, minlength=BINS))
        else:
            upper, _ = upper_half(measurements[0][number], told, shape)
            counts.append(torch.bincount(found[found >> 16 == upper] & 0xFFFF, minlength=BINS))
    return torch.stack(counts)


@hookimpl
def merge_tensor(tensors, measurements, weights, model_options, shape):
    kept = []
    for number, (tensor, weight, told) in enumerate(zip(tensors, weights, model_options, strict=True)):
        upper, rank = upper_half(measurements[0][number], told, shape)
        lower, _ = bin_of(measurements[1][number], rank)
        kept.append(weight * tensor * (bits(tensor) >= (upper << 16 | lower)))
    elected = sum(kept).sign()
    agreeing = [values * (values.sign() == elected) for values in kept]
    share = sum(w * (values != 0) for w, values in zip(weights, agreeing, strict=True))
    return sum(agreeing) / share.clamp(min=torch.finfo(share.dtype).tiny)
