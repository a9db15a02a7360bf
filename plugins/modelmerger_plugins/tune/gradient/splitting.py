"""The terms of all tensors that a strategy merges otherwise than by coefficients, where it splits them into terms."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen
from modelmerger import Terms, split_merge

from modelmerger_plugins.tune.asked import Preparing
from modelmerger_plugins.tune.coefficients import Weigh, no_gradient
from modelmerger_plugins.tune.coordinates import top_of
from modelmerger_plugins.tune.gradient.terms import KeptTerms

if TYPE_CHECKING:
    import torch

    from modelmerger_plugins.tune.opened import Opened


@frozen(eq=False)
class Split:
    """Terms by tensor; none where the strategy is linear in the models."""

    terms: Mapping[str, KeptTerms]
    """The terms."""
    weigh: Mapping[str, Weigh]
    """What weighs them."""

    @classmethod
    def of(cls, opened: "Opened", dtype: "torch.dtype", folder: Path, preparing: Preparing | None = None) -> "Split":
        """Makes the terms, which is the hard work of the strategy.

        dtype: that they are kept in. folder: where their files are. preparing: told of each. Raises
        `ConfigError` where the strategy does not split a tensor, or a number is left open that the terms depend on.
        """
        strategy = opened.read.hooks.strategy
        last = float(strategy.traits.wants_base)
        kept: dict[str, KeptTerms] = {}
        weigh: dict[str, Weigh] = {}
        count = sum(tensor.action == "merge" for tensor in opened.plan.tensors)
        for name, terms in split_merge(opened.merger.config) if strategy.splits and not opened.updates else ():
            if terms is None:
                raise no_gradient(f"{opened.plan.strategy} does not split its merge with these options")
            _check_marks(opened, terms)
            kept[name] = KeptTerms.written(terms.terms, folder / f"terms-{len(kept)}.safetensors", dtype)
            weigh[name] = _with_last(terms.weigh, last)
            if preparing is not None:
                preparing(len(kept), count)
        return cls(kept, weigh)


def _with_last(weigh: Weigh, last: float) -> Weigh:
    """The same with the coefficient of the last input behind those of the terms."""
    return lambda weights, model_options, options: (*weigh(weights, model_options, options), last)


def _check_marks(opened: "Opened", terms: Terms) -> None:
    """Raises `ConfigError` for a number that the terms depend on."""
    for mark in opened.space.marks:
        if top_of(mark.place)[-1] not in ("weight", *terms.follows):
            raise no_gradient(f"what {opened.plan.strategy} adds up depends on {mark.where}")
