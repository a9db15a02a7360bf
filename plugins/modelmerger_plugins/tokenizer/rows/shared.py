"""Vocabularies that have most tokens in common, held once: a quarter of a million tokens take 30 MiB by themselves."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import evolve

from modelmerger_plugins.tokenizer.rows.models import OfModel

MOST = 1 << 22
"""Rows up to which they are held by their number."""


class Shared(Mapping[str, int]):
    """Token → row, where another vocabulary has most of the tokens."""

    def __init__(self, other: Mapping[str, int], tokens: Mapping[str, int]) -> None:
        """other: whose rows are from 0 to `MOST`, each of one token."""
        self._other = other
        self._rows = numbers([-1], max(tokens.values(), default=0)) * (max(other.values(), default=-1) + 1)
        self._own: dict[str, int] = {}
        for token, row in tokens.items():
            if (place := other.get(token)) is None:
                # a copy, since a few old texts and numbers would keep the memory of all those around them
                self._own[token.encode(errors="surrogatepass").decode(errors="surrogatepass")] = int(str(row))
            else:
                self._rows[place] = row
        self._count = len(tokens)

    def __getitem__(self, token: str) -> int:
        place = self._other.get(token)
        row = self._own[token] if place is None else self._rows[place]
        if row < 0:
            raise KeyError(token)
        return row

    def __iter__(self) -> Iterator[str]:
        yield from (token for token, place in self._other.items() if self._rows[place] >= 0)
        yield from self._own

    def __len__(self) -> int:
        return self._count


def numbers(values: Iterable[int], most: int) -> "array[int]":
    """The values in as few bytes as numbers up to `most` take."""
    return array("i" if most < 1 << 31 else "q", values)


def _meet(tokens: Mapping[str, int]) -> bool:
    """Whether two tokens have one row."""
    seen = bytearray(max(tokens.values()) + 1)
    for row in tokens.values():
        seen[row] = 1
    return seen.count(1) < len(tokens)


def shared(models: Sequence[OfModel], source: int) -> list[OfModel]:
    """The models, whose vocabularies are held as the source's as far as they are that."""
    other = models[source].tokens
    if not other or max(other.values()) >= MOST or _meet(other):
        return list(models)
    made: dict[int, Mapping[str, int]] = {id(other): other}
    found = []
    for model in models:
        if model.tokens is not None and id(model.tokens) not in made:
            made[id(model.tokens)] = Shared(other, model.tokens)
        found.append(model if model.tokens is None else evolve(model, tokens=made[id(model.tokens)]))
    return found
