"""A strategy that measures in two rounds, as an installed distribution: TIES, with its exact magnitude threshold."""

import resource
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from blocks import set_block
from faults.stopping import ended, fork
from modelmerger.engine import measuring
from modelmerger.testing import plan_in_memory

TIES = '''
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
'''
GENERATOR = torch.Generator().manual_seed(5)
SHAPES: Mapping[str, tuple[int, ...]] = {"matrix": (90, 70), "vector": (257,), "scalar": ()}
BASE = {name: torch.randn(shape, generator=GENERATOR) for name, shape in SHAPES.items()}
MODELS = [
    {name: tensor + scale * torch.randn(tensor.shape, generator=GENERATOR) for name, tensor in BASE.items()}
    for scale in (0.02, 0.3, 5.0)
]
WEIGHTS, DENSITIES = (1.0, 0.5, 0.25), (0.3, 0.07, 1.0)


@pytest.fixture(autouse=True)
def _installed(distribution: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    distribution("acme", "1.0", "[modelmerger.strategies]\nmy_ties = acme_ties\n", acme_ties=TIES)
    set_block(monkeypatch, 1 << 12)
    monkeypatch.setattr("modelmerger.planning.measured.MEASURED", 500)
    monkeypatch.setattr(measuring, "BLOCKS_A_UNIT", 3)


def ties(name: str) -> np.ndarray:
    """By sorting, in float64."""
    base = BASE[name].double().numpy()
    kept = []
    for model, weight, density in zip(MODELS, WEIGHTS, DENSITIES, strict=True):
        task = model[name].double().numpy() - base
        magnitudes = np.abs(task.astype(np.float32))
        threshold = np.sort(magnitudes, axis=None)[::-1][max(1, round(density * task.size)) - 1]
        kept.append(np.where(magnitudes >= threshold, weight * task, 0))
    sign = np.sign(sum(kept))
    agreeing = [np.where(np.sign(values) == sign, values, 0) for values in kept]
    share = sum(weight * (values != 0) for weight, values in zip(WEIGHTS, agreeing, strict=True))
    return base + sum(agreeing) / np.where(share == 0, 1, share)


def test_two_rounds_find_the_exact_threshold() -> None:
    options = [{"density": density} for density in DENSITIES]
    merge = plan_in_memory("my_ties", MODELS, BASE, WEIGHTS, options)

    merged = merge.merge()

    for name in SHAPES:
        np.testing.assert_allclose(merged[name].double().numpy(), ties(name), rtol=2**-23, atol=1e-7)
    other = merge.merge(workers=3, slice_elements=100, order=lambda units: list(reversed(units)))
    assert all(torch.equal(other[name], merged[name]) for name in SHAPES)
    assert merge.plan.bytes_read == 3 * 4 * 4 * sum(BASE[name].numel() for name in SHAPES)


def test_the_sums_of_a_large_tensor_do_not_take_memory_by_its_blocks() -> None:
    """A histogram of 65,536 bins for each of 500 blocks and 3 models would be 750 MiB."""
    tensors = [{"t": torch.randn(250, 1000, generator=GENERATOR).bfloat16()} for _ in range(3)]
    merge = plan_in_memory("my_ties", tensors, {"t": torch.zeros(250, 1000, dtype=torch.bfloat16)})

    def grows() -> bool:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        merge.merge(workers=2, order=lambda units: list(reversed(units)))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > 150 << 10

    assert ended(fork(grows)) == 0
