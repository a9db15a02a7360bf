"""The global random generators of torch, NumPy and Python, which no plugin is to use."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


def seed_globally(seed: int) -> None:
    """Seeds torch, NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the global state is what this is about)
    random.seed(seed)


def global_states() -> tuple[bytes, Any, Any]:
    """Their states, to be compared."""
    torchs, numpys = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002 (the global state)
    return bytes(torchs.numpy()), str(numpys), random.getstate()


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Puts the states back afterwards."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002 (the global state)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])  # noqa: NPY002 (the global state)
        random.setstate(before[2])
