"""What a check is, and how it is said that one fails."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

import torch
from attrs import frozen

from modelmerger.values.errors import MergeError

S = TypeVar("S")
Tensors = Mapping[str, torch.Tensor]


@frozen
class Check(Generic[S]):
    """A function that raises `AssertionError` for a plugin that breaks a promise, and the plugins that make it."""

    function: Callable[[S], None]
    """Takes the plugin under test. Its name and its docstring are those of the check."""
    applies: Callable[[S], bool] = lambda _: True
    """Whether a plugin makes the promise, by what it declares."""

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.function.__name__

    @property
    def promise(self) -> str:
        """The first paragraph of the function's docstring."""
        return " ".join((self.function.__doc__ or "").partition("\n\n")[0].split())


@contextlib.contextmanager
def works(what: str) -> Iterator[None]:
    """Whatever is raised in here becomes an `AssertionError`. what: the merge, as the subject of a sentence."""
    try:
        yield
    except MergeError as error:
        raise AssertionError(f"{what} must work, and it was refused: {error}") from error


def is_same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors have the same shape, dtype and bits."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return torch.equal(_bits(first), _bits(second))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def assert_same(found: Tensors, wanted: Tensors, sentence: str) -> None:
    """Raises the sentence, with the name of the first tensor whose bits differ and by how much."""
    for name, tensor in wanted.items():
        if not is_same(found[name], tensor):
            raise AssertionError(f"{sentence} ({name} differs{_by(found[name], tensor)})")


def assert_close(found: Tensors, wanted: Tensors, sentence: str, tolerance: float = 1e-5) -> None:
    """Raises the sentence where a tensor differs by more than `tolerance` of its largest magnitude."""
    for name, tensor in wanted.items():
        due, given = tensor.double(), found[name].double()
        most = float(due.abs().max()) if due.numel() else 0.0
        if due.shape != given.shape or not torch.allclose(given, due, rtol=0, atol=tolerance * most + 1e-30):
            raise AssertionError(f"{sentence} ({name} differs{_by(given, due)})")


def _by(found: torch.Tensor, due: torch.Tensor) -> str:
    if found.shape != due.shape:
        return f": its shape is {list(found.shape)} and not {list(due.shape)}"
    if found.dtype != due.dtype:
        return f": its dtype is {found.dtype} and not {due.dtype}"
    if not due.numel():
        return ""
    gap = float((found.double() - due.double()).abs().max())
    return f" by up to {gap:.3g}, and its largest number is {float(due.double().abs().max()):.3g}"


def assert_finite(merged: Tensors, sentence: str) -> None:
    """Raises the sentence where a tensor holds a NaN or an infinity."""
    for name, tensor in merged.items():
        if not torch.isfinite(tensor.double()).all():
            raise AssertionError(f"{sentence} ({name} holds a NaN or an infinity)")


def assert_refused(act: Callable[[], Any], kind: type[MergeError], words: tuple[str, ...], sentence: str) -> None:
    """Raises the sentence where `act` raises nothing, another error, or one whose text lacks some of the words."""
    try:
        act()
    except kind as error:
        if missing := [word for word in words if word not in str(error)]:
            raise AssertionError(f"{sentence} The error does not name {missing[0]!r}: {error}") from error
    except Exception as error:
        raise AssertionError(f"{sentence} It raised {type(error).__name__} instead: {error}") from error
    else:
        raise AssertionError(f"{sentence} Nothing was raised.")
