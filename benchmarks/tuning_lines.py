"""Lines of a folder to tune on: evenly from its sources, or as like other lines as its own can be."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from modelmerger_plugins.tune.nearness import RUN, plain

CANDIDATES = 400
"""Lines of a dialect, those most like the wanted ones by their letters, of which some are taken by their losses."""
Measure = Callable[[Sequence[str]], "tuple[np.ndarray, np.ndarray]"]
"""Lines → the nats of each under each model, the base last, (lines, models); and its tokens, (lines,)."""


def evenly(folder: Path, dialect: str, without: str) -> list[str]:
    """All lines of a dialect, a line of each source in turn, without sources whose names begin with `without`."""
    by_source: dict[str, list[str]] = {}
    for row in (folder / f"{dialect}.tsv").read_text(encoding="utf-8").splitlines():
        source, _, text = row.partition("\t")
        if not (without and source.startswith(without)):
            by_source.setdefault(source, []).append(text)
    drawn = random.Random(0)
    for own in by_source.values():
        drawn.shuffle(own)
    return [text for turn in itertools.zip_longest(*by_source.values()) for text in turn if text is not None]


def alike(lines: Sequence[str], wanted: Sequence[str], measure: Measure) -> list[str]:
    """`CANDIDATES` of the lines, in the order in which they are to be taken, for as many as are needed.

    They are the nearest by their letters. Each next one is that which brings what the models make of all that are taken
    nearest to what they make of the wanted lines: the nats a token of the base, and by how many less each other model
    has (herding: Chen, Welling and Smola 2010, arXiv:1203.3472).
    """
    lines = nearest(lines, wanted)[:CANDIDATES]
    (nats, tokens), (of_wanted, tokens_of_wanted) = measure(lines), measure(wanted)
    target = _profile(of_wanted.sum(0) / tokens_of_wanted.sum())
    scale = _profile(nats / tokens[:, None]).std(0)
    left = np.ones(len(lines), bool)
    taken: list[int] = []
    for _ in lines:
        sums = nats + nats[taken].sum(0)
        profiles = _profile(sums / (tokens + tokens[taken].sum())[:, None])
        away = (((profiles - target) / scale) ** 2).sum(1)
        taken.append(int(np.where(left, away, np.inf).argmin()))
        left[taken[-1]] = False
    return [lines[i] for i in taken]


def _profile(nats: np.ndarray) -> np.ndarray:
    base = nats[..., -1:]
    return np.concatenate([base, base - nats[..., :-1]], -1)


def nearest(lines: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Lines by how much likelier their runs of letters are in the wanted ones than in all (Moore and Lewis 2010).

    Those that are shorter or longer than all wanted ones have no place.
    """
    lengths = [len(_runs(line)) for line in wanted]
    lines = [line for line in lines if min(lengths) <= len(_runs(line)) <= max(lengths)]
    here, there = (Counter(run for line in own for run in _runs(line)) for own in (lines, wanted))
    in_all, in_wanted = here.total(), there.total()

    def likeness(line: str) -> float:
        own = _runs(line)
        return sum(math.log((1 + there[run] / in_wanted / (here[run] / in_all)) / 2) for run in own) / len(own)

    return sorted(lines, key=lambda line: (-likeness(line), line))


def _runs(line: str) -> list[str]:
    letters = f" {plain(line)} "
    return [letters[i : i + RUN] for i in range(max(1, len(letters) - RUN + 1))]
