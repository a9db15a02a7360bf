"""The check of the terms of a tensor, as a strategy answers with them, and of the numbers that it weighs them with."""

from collections.abc import Callable, Collection, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from attrs import evolve

from modelmerger.hooks.answers import are_finite, is_dense, is_list_of, kind_of, not_a_tensor, shares_memory
from modelmerger.values.errors import PluginError
from modelmerger.values.strategies.terms import Terms
from modelmerger.values.text import shown

if TYPE_CHECKING:
    from torch import Tensor

Guard = Callable[[Callable[[], Any]], Any]
"""The result of a call of the strategy's own code, or an error that names the strategy."""
Broken = Callable[[str], PluginError]
"""The error for an answer. It is handed what is wrong with it."""


def checked_terms(found: Any, inputs: "Sequence[Tensor]", guard: Guard, broken: Broken) -> Terms:
    """The answer, if these are sound terms of tensors like the inputs. Its `weigh` is checked whenever it is called.

    Raises what `broken` gives.
    """
    if not isinstance(found, Terms):
        raise broken(f"gave {kind_of(found)} where Terms or None is due")
    if not is_list_of(object, found.terms):
        raise broken(f"gave {kind_of(found.terms)} where a list of terms is due")
    for term in found.terms:
        if wrong := _fault(term, inputs):
            raise broken(wrong)
    if isinstance(found.follows, str) or not isinstance(found.follows, Collection):
        raise broken(f"gave follows={found.follows!r} where the names of options are due")
    count = len(found.terms)

    def weigh(weights: Sequence[float], model_options: Sequence[Any], options: Any) -> Sequence[float]:
        numbers = guard(lambda: found.weigh(weights, model_options, options))
        if not is_list_of(Real, numbers) or len(numbers) != count or not are_finite(numbers):
            raise broken(f"weighs with {shown(repr(numbers))} where {count} finite numbers are due")
        return tuple(map(float, numbers))

    return evolve(found, weigh=weigh)


def _fault(term: Any, inputs: "Sequence[Tensor]") -> str:
    """What is wrong with a term; empty where nothing is."""
    first = inputs[0]
    factors = list(term) if isinstance(term, tuple | list) else [term]
    for made in factors:
        if not isinstance(made, type(first)) or not is_dense(made) or made.dtype != first.dtype:
            due = f"a tensor, {str(first.dtype).removeprefix('torch.')}, is due"
            return f"gave {kind_of(made)} where {due}{not_a_tensor(made)}"
        if shares_memory(made, inputs):
            return "gave back one of its inputs; make new tensors"
    shapes = [tuple(made.shape) for made in factors]
    if len(shapes) == 1 and isinstance(term, type(first)):
        fits = shapes[0] == tuple(first.shape)
    else:
        fits = [len(shape) for shape in shapes] == [2, 2] and shapes[0][1] == shapes[1][0]
        fits = fits and (shapes[0][0], shapes[1][1]) == tuple(first.shape)
    if fits:
        return ""
    said = " and ".join(str(list(shape)) for shape in shapes)
    return f"gave a term of shape {said} where {list(first.shape)} is due, or two factors of that"
