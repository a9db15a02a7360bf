"""What was made of tensors is kept for the next merge of the same tensors, while somebody asks for that."""

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
from blake3 import blake3

from modelmerger.inputs.available_memory import available_memory

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
SHARE = 0.25
"""Of the memory that is available, what is kept at most where nothing else is said."""


class _Memory:
    """Results by what they were made of. What comes first stays, for all merges come to the same tensors in turn."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._found: dict[bytes, Any] = {}
        self._lock = threading.Lock()

    def of(self, key: bytes, make: Callable[[], T]) -> T:
        with self._lock:
            if key in self._found:
                found: T = self._found[key]
                return found
        made = make()
        size = sum(tensor.untyped_storage().nbytes() for tensor in _tensors(made))
        with self._lock:
            if key not in self._found and size <= self._left:
                self._found[key] = made
                self._left -= size
        return made


_asked: list[_Memory] = []
"""One for each context that is open; the last one counts."""


@contextlib.contextmanager
def recalling(most: int | None = None, among: int = 1) -> Iterator[None]:
    """While the context lasts, merges of this process keep what is `recalled`.

    most: bytes; None for a quarter of the memory that is available. among: how many processes have that together.
    """
    memory = _Memory((int(SHARE * available_memory()) if most is None else most) // among)
    _asked.append(memory)
    try:
        yield
    finally:
        _asked.remove(memory)


def recalled(what: str, tensors: "Sequence[Tensor]", told: Hashable, make: Callable[[], T]) -> T:
    """What `make` gives. Within `recalling`, it is made once for tensors of the same numbers.

    For strategies whose arithmetic on whole tensors is long, and does not depend on all that a search for good options
    or weights changes. what: names the arithmetic. tensors, told: all that the result depends on; `told` has a `repr`
    that says everything. The result holds tensors of memory of their own, in tuples, lists and attrs classes, and
    whoever gets it leaves them as they are.
    """
    return _asked[-1].of(_key(what, tensors, told), make) if _asked else make()


def _key(what: str, tensors: "Sequence[Tensor]", told: Hashable) -> bytes:
    import torch

    kinds = [(str(one.dtype), str(one.device), tuple(one.shape)) for one in tensors]
    hasher = blake3(repr((what, told, kinds)).encode())
    for one in tensors:
        hasher.update(one.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return hasher.digest()


def _tensors(made: Any) -> "Iterator[Tensor]":
    if hasattr(made, "untyped_storage"):
        yield made
    elif isinstance(made, list | tuple):
        for one in made:
            yield from _tensors(one)
    elif attrs.has(type(made)):
        for field in attrs.fields(type(made)):
            yield from _tensors(getattr(made, field.name))
