"""Which of two tokenizers leads a script: the one with more tokens of it."""

from collections import Counter
from collections.abc import Iterable, Mapping

from attrs import frozen

from modelmerger_plugins.tokenizer.union.scripts import LATIN

LEAST = 32
"""Tokens of a script that the second must have to lead it."""


@frozen
class Leaders:
    """Who leads which script. Latin, and what has no script, the first leads."""

    counts: Mapping[str, tuple[int, int]]
    """Script → the tokens of it in the first and in the second."""

    @property
    def second(self) -> frozenset[str]:
        """The scripts that the second leads."""
        return frozenset(
            script
            for script, (ours, theirs) in self.counts.items()
            if theirs > ours and theirs >= LEAST and script != LATIN
        )

    def led(self, scripts: frozenset[str]) -> bool:
        """Whether there is a script among these, and the second leads them all."""
        return bool(scripts) and scripts <= self.second


def leaders_of(first: Iterable[frozenset[str]], second: Iterable[frozenset[str]]) -> Leaders:
    """The leaders, from the scripts of each token of both."""
    ours, theirs = (Counter(script for found in tokens for script in found) for tokens in (first, second))
    return Leaders({script: (ours[script], theirs[script]) for script in sorted({*ours, *theirs})})
