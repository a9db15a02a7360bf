"""How much each checkpoint of a training counts, the oldest first; together they count 1.

`uniform`: all the same. `linear`: 1, 2, 3, … parts. `ema`: the mean of an exponential moving average that begins with
nothing, corrected for that beginning as Adam corrects its moments: parts of decay^age, where the newest has age 0.

`wsm`: weights that make up for a learning rate that never decayed. A mean Σ cⱼ·θⱼ of checkpoints is the first of them
plus their differences, the i-th of which counts Σ cⱼ over j ≥ i. So with cⱼ = D(j) - D(j+1), it counts D(i), as if the
learning rate had decayed as D does from 1 before the first checkpoint to 0 behind the last one. With a linear D these
weights are uniform. Tian et al. 2025, "WSM: Decay-Free Learning Rate Schedule via Checkpoint Merging for LLM
Pre-training", https://arxiv.org/abs/2507.17634, theorem 3.1; the inverse square root decay is 1 - √t.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

DECAYS: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "linear": lambda t: 1 - t,
        "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2,
        "inverse_sqrt": lambda t: 1 - math.sqrt(t),
    }
)
"""Learning rates between t = 0 and t = 1."""


def shares(schedule: str, count: int, decay: float | str | None) -> list[float]:
    """The share of each of `count` checkpoints. decay: a number for `ema`, one of `DECAYS` for `wsm`."""
    if schedule == "wsm":
        rate = [DECAYS[str(decay or "inverse_sqrt")](i / count) for i in range(count)] + [0.0]
        return [before - behind for before, behind in zip(rate, rate[1:], strict=False)]
    parts = [1.0] * count
    if schedule == "linear":
        parts = [i + 1.0 for i in range(count)]
    elif schedule == "ema":
        kept = 0.9 if decay is None else float(decay)
        parts = [kept ** (count - 1 - i) for i in range(count)]
    total = math.fsum(parts)
    return [part / total for part in parts]
