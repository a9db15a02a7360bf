"""What a header says, and what is said of one that is refused."""

from collections.abc import Mapping

from attrs import frozen

from modelmerger.values.errors import InputError, Problem
from modelmerger.values.text import shown

METADATA = "__metadata__"
"""The key of a header that names no tensor."""


class HeaderError(InputError):
    """A header that is refused, said without the file's name: whoever reads the file adds that."""

    def __init__(self, reason: str, tensor: str | None = None) -> None:
        super().__init__(Problem(reason, tensor=tensor or ""))
        self.reason = reason
        """A sentence without the file's name."""
        self.tensor = tensor
        """The name of the tensor that it is about, if that is a valid one."""


@frozen(weakref_slot=False)
class TensorEntry:
    """A tensor, and where it lies."""

    name: str
    """Unique in its file."""
    dtype: str
    """As safetensors spells it ("BF16")."""
    shape: tuple[int, ...]
    """One number a dimension, () for a scalar."""
    begin: int
    """The offset in the file of the tensor's first byte."""
    end: int
    """The offset in the file of the first byte behind the tensor."""


@frozen
class Header:
    """The tensors of a file, and what is said of the file as a whole."""

    entries: Mapping[str, TensorEntry]
    """By name, in the order in which the tensors lie in the file."""
    metadata: Mapping[str, str]
    """Whatever the writer wanted to say; empty where that was nothing."""
    data_start: int
    """The offset in the file of the first byte of data."""


def quoted(value: object, limit: int = 60) -> str:
    """What a header holds, in quotes, made safe to show and shortened to `limit` characters."""
    text = str(value)
    if len(text) > 2 * limit:
        text = text[:limit] + text[-limit:]
    return f"'{shown(text, limit)}'"
