"""Which lines say nearly the same, whatever their spelling: found by the runs of letters that they share."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

SHARE = 0.7
"""Of the runs of letters of two lines together, the share that both have, from which on they are nearly the same."""
RUN = 4
"""Letters in a run."""
_MOST_LINES = 400
"""Of lines that share a run; a run that more lines have says nothing."""


def plain(text: str) -> str:
    """The letters and digits of a text, in small letters and without marks, with one space between words."""
    letters = unicodedata.normalize("NFKD", text).casefold()
    kept = (
        c if c.isalnum() and c != "\u0640" else "" if unicodedata.combining(c) or c == "\u0640" else " "
        for c in letters
    )
    return " ".join("".join(kept).split())


def near_groups(texts: Sequence[str]) -> list[int]:
    """The number of the first line that each line is nearly the same as, over others too; its own where there is none.

    Lines of one group stay on one side of every division.
    """
    first = list(range(len(texts)))

    def root(i: int) -> int:
        while first[i] != i:
            first[i] = first[first[i]]
            i = first[i]
        return i

    runs = [_runs(text) for text in map(plain, texts)]
    having: dict[str, list[int]] = defaultdict(list)
    for number, own in enumerate(runs):
        shared = Counter(other for run in own if len(having[run]) < _MOST_LINES for other in having[run])
        for other, both in shared.items():
            if both >= SHARE * (len(own) + len(runs[other]) - both):
                low, high = sorted((root(number), root(other)))
                first[high] = low
        for run in own:
            having[run].append(number)
    return [root(i) for i in range(len(texts))]


def _runs(text: str) -> frozenset[str]:
    return frozenset(text[i : i + RUN] for i in range(max(1, len(text) - RUN + 1)))
