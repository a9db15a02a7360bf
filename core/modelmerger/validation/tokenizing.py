"""Tokenizers are programs of the model's, by their patterns and replacements: tried out in a process of its own first,
which may take so long and no more, on all that they are about to be given.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from modelmerger.hooks.inquiries.child import Call, Limits, NoAnswerError, called, without_process
from modelmerger.inputs.loading import read_beside
from modelmerger.validation.likelihoods import Ids
from modelmerger.values.errors import UnmeasurableError
from modelmerger.values.text import shown

SECONDS = 20
"""Of the processor, for building one and for a few texts."""
LETTERS = 50_000
"""How many letters, or tokens, each further second is for: real ones take hundreds of thousands."""
MEMORY = 4 << 30
"""Bytes that the process may hold."""
FILE = "tokenizer.json"
PROBES = (
    *(f"{letter * 64}!" for letter in ("a", "A", "0", " ", "\n", ".", "_", "é", "م", "中", "😀")),
    "Words of several kinds, don't they? مرحبا بالعالم 2026.",
)
"""Texts on which every tokenizer is tried out, whatever it is loaded for: what patterns that run away do so on."""


class Proof:
    """Of what a tokenizer is known to end with in time. name: of its model, for messages.

    Where no process can be started that runs this interpreter, nothing is tried out.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._texts: set[str] = set()

    def of_file(self, directory: Path, texts: Sequence[str]) -> None:
        """Before the tokenizer in a directory is loaded. Raises `UnmeasurableError`."""
        content = read_beside(directory, FILE)
        if content is not None:
            self._try(content.decode(errors="replace"), texts)

    def of_texts(self, tokenizer: Any, texts: Iterable[str]) -> None:
        """Before it is given the texts. tokenizer: a transformers one. Raises `UnmeasurableError`."""
        if (new := [text for text in texts if text not in self._texts]) and (written := _written(tokenizer)):
            self._try(written, new)

    def of_ids(self, tokenizer: Any, ids: Sequence[Ids]) -> None:
        """Before it puts ids together, and takes what comes of that apart. Raises `UnmeasurableError`."""
        if written := _written(tokenizer):
            self._try(written, [], ids)

    def _try(self, written: str, texts: Sequence[str], ids: Sequence[Ids] = ()) -> None:
        if without_process():
            return
        seconds = SECONDS + (sum(map(len, texts)) + sum(map(len, ids))) // LETTERS
        limits = Limits(seconds=60 + 3 * seconds, processor=seconds, memory=MEMORY)
        asked = {"tokenizer": written, "texts": list(texts), "ids": [list(map(int, group)) for group in ids]}
        alone = {"TOKENIZERS_PARALLELISM": "false"}
        try:
            called(Call(f"{__package__}.tokenized:tokenized", asked, limits, alone))
        except NoAnswerError as error:
            ended = error.status is not None or error.limit is not None
            reason = f"it takes more than {seconds} s or {MEMORY >> 20} MiB" if ended else str(error)
            raise UnmeasurableError(f"the tokenizer of {self._name} fails: {shown(reason, 200)}") from error
        self._texts.update(texts)


def _written(tokenizer: Any) -> str | None:
    """What its tokenizer.json holds; None for one that transformers wrote in Python, without patterns of its own."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return None if backend is None else str(backend.to_str())
