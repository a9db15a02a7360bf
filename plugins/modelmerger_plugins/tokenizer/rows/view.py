"""A model whose rows are another vocabulary's."""

import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from attrs import evolve
from blake3 import blake3
from modelmerger import Checkpoint, CheckpointView, read_elements, torch_dtype

from modelmerger_plugins.tokenizer.rows.configs import with_vocabulary_size
from modelmerger_plugins.tokenizer.rows.matching import Matching
from modelmerger_plugins.tokenizer.rows.matrices import name_of_rows, with_rows, with_token_rows
from modelmerger_plugins.tokenizer.rows.recipes import MADE, ZEROS, Recipe, Rows
from modelmerger_plugins.tokenizer.rows.shared import numbers

if TYPE_CHECKING:
    from torch import Tensor

KEPT_FROM = 8
"""Rows that a row is the mean of, from which on it is made once and kept."""
AT_ONCE = 1 << 19
"""Elements that are read at a time for such a row."""


class RowsView(CheckpointView):
    """Shows the rows of embeddings and heads in the order of the merged model's vocabulary, made where they lack.

    A row that is made is the mean of rows in float32, rounded once to the stored dtype; the mean of one is that row.
    """

    def __init__(self, checkpoint: Checkpoint, rows: Rows, matching: Matching) -> None:
        """checkpoint: one of the matching's models."""
        index = matching.checkpoints.index(checkpoint)
        own = matching.models[index].rows or 0
        config = checkpoint.donor.config
        super().__init__(
            checkpoint, config=None if config is None else with_vocabulary_size(config, own, matching.rows)
        )
        self.matching = matching
        """What goes with what."""
        self.made = rows.made
        """What each row is made of that is no row of the model's own."""
        self.columns = with_token_rows(checkpoint, own)
        """Each tensor that has a row for each token → how many numbers a row holds."""
        self.tensors = {
            name: with_rows(info, own, matching.rows) if name in self.columns else info
            for name, info in checkpoint.tensors.items()
        }
        self.donor = evolve(self.donor, vocabulary=matching.tokens)
        self.files = tuple(dict.fromkeys([*checkpoint.files, *matching.models[index].identities]))
        self._starts, self._origins = _runs(rows.origins)
        self._kept: dict[tuple[str, Recipe], Tensor] = {}
        self._lock = threading.Lock()

    @cached_property
    def content(self) -> str:
        """A digest of the rows, of what they are made of, and of what no file of any model holds."""
        others = [checkpoint.content for checkpoint in self.matching.checkpoints]
        recipes = {recipe: number for number, recipe in enumerate(dict.fromkeys(self.made.values()))}
        hasher = blake3(repr([super().content, others, self.matching.rows]).encode())
        for recipe in recipes:
            hasher.update(f"{recipe.sources}\n".encode())
        for row, recipe in self.made.items():
            hasher.update(f"{row} {recipes[recipe]}\n".encode())
        for token in sorted(self.matching.tokens):  # one by one, since all together take 30 MiB
            hasher.update(f"{self.matching.tokens[token]} {token!r}\n".encode(errors="surrogatepass"))
        hasher.update(self._starts.tobytes() + self._origins.tobytes())
        return hasher.hexdigest()

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        """Copies runs of consecutive rows, and makes those that lack."""
        if tensor not in self.columns:
            super().read(tensor, start, stop, buffer)
            return
        info, columns = self.tensors[tensor], self.columns[tensor]
        done = 0
        for first, last, origin in self._parts(start, stop, columns):
            length = info.span(first, last)[1]
            part = buffer[done : done + length]
            if origin == MADE:
                self._make(tensor, first, last, part)
            else:
                row = first // columns
                offset = (origin - row) * columns
                self.checkpoint.read(self.names[tensor], first + offset, last + offset, part)
            done += length

    def prefetch(self, tensor: str, start: int, stop: int) -> None:
        """Passes on which of the model's own rows are needed, where these are few runs."""
        if tensor not in self.columns:
            super().prefetch(tensor, start, stop)
            return
        columns = self.columns[tensor]
        parts = [part for part in self._parts(start, stop, columns) if part[2] != MADE]
        for first, last, origin in parts if len(parts) <= KEPT_FROM else ():
            offset = (origin - first // columns) * columns
            self.checkpoint.prefetch(self.names[tensor], first + offset, last + offset)

    def made_of(self, tensor: str) -> Sequence[tuple[Checkpoint, str]]:
        """The model's own tensor, and those of the models that rows are made of."""
        if tensor not in self.columns:
            return super().made_of(tensor)
        indices = dict.fromkeys(index for recipe in set(self.made.values()) for index, _ in recipe.sources)
        others = [found for index in indices if (found := self._rows_of(index, tensor))]
        return list(dict.fromkeys([(self.checkpoint, self.names[tensor]), *others]))

    def _parts(self, start: int, stop: int, columns: int) -> Iterator[tuple[int, int, int]]:
        """The runs in elements `start` to `stop`: first and last element of each, and the model's own row, or MADE."""
        if stop <= start:
            return
        for number in range(bisect_right(self._starts, start // columns) - 1, len(self._starts)):
            begin, origin = self._starts[number], self._origins[number]
            end = self._starts[number + 1] if number + 1 < len(self._starts) else self.matching.rows
            first, last = max(start, begin * columns), min(stop, end * columns)
            if first >= stop:
                return
            yield first, last, origin if origin == MADE else origin + first // columns - begin

    def _make(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        import torch

        columns = self.columns[tensor]
        out = torch.frombuffer(buffer, dtype=torch.uint8).view(torch_dtype(self.tensors[tensor].dtype))
        done = 0
        for row in range(start // columns, -(-stop // columns)):
            first, last = max(start, row * columns), min(stop, (row + 1) * columns)
            made = self._row(tensor, self.made.get(row, ZEROS), first - row * columns, last - row * columns)
            out[done : done + last - first] = made
            done += last - first

    def _row(self, tensor: str, recipe: Recipe, first: int, last: int) -> "Tensor | int":
        """Columns `first` to `last` of a row that is made; 0 for zeros."""
        sources = [(found, row) for index, row in recipe.sources if (found := self._rows_of(index, tensor))]
        if not sources:
            return 0
        if len(sources) == 1:
            (checkpoint, name), row = sources[0]
            offset = row * self.columns[tensor]
            return read_elements(checkpoint, name, offset + first, offset + last)
        if len(sources) < KEPT_FROM:
            return self._mean(sources, self.columns[tensor], first, last)
        with self._lock:
            if (tensor, recipe) not in self._kept:
                self._kept[tensor, recipe] = self._mean(sources, self.columns[tensor], 0, self.columns[tensor])
        return self._kept[tensor, recipe][first:last]

    @staticmethod
    def _mean(sources: Sequence[tuple[tuple[Checkpoint, str], int]], columns: int, first: int, last: int) -> "Tensor":
        """float32."""
        total: Any = None
        for (checkpoint, name), row in sources:
            values = read_elements(checkpoint, name, row * columns + first, row * columns + last).float()
            total = values if total is None else total.add_(values)
        mean: Tensor = total.div_(len(sources))
        return mean

    def _rows_of(self, index: int, tensor: str) -> tuple[Checkpoint, str] | None:
        """The same matrix of a model; None where it has none of as many columns."""
        checkpoint = self.matching.checkpoints[index]
        name = name_of_rows(checkpoint, tensor)
        own = self.matching.models[index].rows or 0
        if name is None or with_token_rows(checkpoint, own).get(name) != self.columns[tensor]:
            return None
        return checkpoint, name


def _runs(origins: Sequence[int]) -> "tuple[array[int], array[int]]":
    """Runs of rows that follow each other in the model too, or are all made: first row, and first own row, of each."""
    starts, firsts = numbers((), len(origins)), numbers((), len(origins))
    due = None
    for row, origin in enumerate(origins):
        if origin != due:
            starts.append(row)
            firsts.append(origin)
        due = MADE if origin == MADE else origin + 1
    return starts, firsts
