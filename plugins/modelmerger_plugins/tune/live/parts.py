"""Lines measured in parts, so that what is clearly worse is dropped after the first ones."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from modelmerger_plugins.tune.live.benches import Drop, Measure, Measured, Vector
from modelmerger_plugins.tune.measured import Lines, Nats, per_token

SHARES = (0.25, 0.5)
"""Of the lines of each split, those up to the end of each part but the last."""
FEWEST = 8
"""Lines of each split that are divided at all."""


def in_parts(lines: Lines, begun: Callable[[Vector], Callable[[Lines], Nats]]) -> Measure:
    """Measures these lines part by part. begun: of a vector, what gives the nats of lines."""
    parts = _parts(lines)

    def measure(vector: Vector, drop: Drop) -> Measured:
        started = time.monotonic()
        nats_of = begun(vector)
        found: list[Nats] = []
        losses = []
        for number, part in enumerate(parts):
            found.append(nats_of(part))
            losses.append(_so_far(found, parts[: number + 1]))
            if number < len(parts) - 1 and drop(number, losses[-1]):
                return Measured(losses[-1], losses, dropped=True, seconds=time.monotonic() - started)
        return Measured(losses[-1], losses[:-1], dropped=False, seconds=time.monotonic() - started)

    return measure


def _parts(lines: Lines) -> list[Lines]:
    """The lines of each split in runs, all of which have lines of every split; whole where there are few."""
    shares = SHARES if min(map(len, lines.tokens.values())) >= FEWEST else ()
    ends = [0.0, *shares, 1.0]
    return [
        Lines({split: own[int(low * len(own)) : int(high * len(own))] for split, own in lines.tokens.items()}, {})
        for low, high in zip(ends, ends[1:], strict=False)
    ]


def _so_far(found: Sequence[Nats], parts: Sequence[Lines]) -> dict[str, float]:
    splits = parts[0].splits
    tokens = {split: [line for part in parts for line in part.tokens[split]] for split in splits}
    return per_token({split: np.concatenate([nats[split] for nats in found]) for split in splits}, Lines(tokens, {}))
