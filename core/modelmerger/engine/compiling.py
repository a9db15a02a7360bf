"""Functions through torch.compile, where there is a compiler."""

import functools
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from modelmerger.values.text import shown

log = logging.getLogger("modelmerger")
P = ParamSpec("P")
T = TypeVar("T")


def compile_function(function: Callable[P, T]) -> Callable[P, T]:
    """The function, compiled at its first call. If only the compiled one fails, warns and uses the original instead.

    The function must give the same result for the same arguments, however often it is called.
    """
    import torch

    fast: Callable[P, T] | None = torch.compile(function, dynamic=True)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        nonlocal fast
        if (chosen := fast) is None:
            return function(*args, **kwargs)
        try:
            return chosen(*args, **kwargs)
        except Exception as error:
            result = function(*args, **kwargs)  # what the function itself raises has nothing to do with compiling
            if fast is not None:
                fast = None
                reason = shown(str(error).partition("\n")[0], 200)
                log.warning("torch_compile: the merge goes on without it: %s: %s", type(error).__name__, reason)
            return result

    return call
