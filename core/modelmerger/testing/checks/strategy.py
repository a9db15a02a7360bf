"""A strategy under test, and small models to merge by it."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, Self

import torch
from attrs import field, frozen

from modelmerger.hooks.assembly import assemble
from modelmerger.hooks.plugins import Plugin, load
from modelmerger.hooks.strategy import Strategy
from modelmerger.testing.checks.check import Tensors, works
from modelmerger.testing.checks.given import provider_under_test
from modelmerger.testing.merging import Planned, plan_in_memory
from modelmerger.values.traits import Traits

Promise = Literal["identity", "linearity", "homogeneity"]
"""What a strategy may promise that its traits do not say: equal models give that model, the merge of sums is the sum of
merges, models scaled by a factor give the merge scaled by it."""
SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "model.layers.0.mlp.weight": (12, 16),
        "model.layers.1.norm.weight": (24,),
        "model.layers.1.conv.weight": (4, 3, 2, 5),
    }
)
"""Of the models that are merged unless a check says otherwise."""
MOST = 3
"""Models that are merged, where the traits allow as many."""


def drawn(
    seed: int,
    shapes: Mapping[str, Sequence[int]] = SHAPES,
    near: Tensors | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, torch.Tensor]:
    """Normal numbers; with `near`, changes of a tenth of that to those."""
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(tuple(shape), generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    if near is not None:
        made = {name: near[name].double() + value / 10 for name, value in made.items()}
    return {name: value.to(dtype) for name, value in made.items()}


@frozen(eq=False)
class Inputs:
    """Models to be merged, and their base if the strategy wants one."""

    models: Sequence[Tensors]
    base: Tensors | None


@frozen(eq=False)
class StrategyUnderTest:
    """What the checks of strategies take."""

    plugin: Any
    """As it was given: a name, a module or an object."""
    declared: Plugin
    """What its module declares."""
    strategy: Strategy
    """Its hooks."""
    options: Mapping[str, Any] = field(factory=dict)
    """Of the strategy, in every merge of the checks."""
    model_options: Mapping[str, Any] = field(factory=dict)
    """Of each model, in every merge of the checks."""
    promises: Collection[Promise] = ()
    """What the strategy promises beside its traits."""

    @classmethod
    def of(
        cls,
        plugin: Any,
        *,
        options: Mapping[str, Any] | None = None,
        model_options: Mapping[str, Any] | None = None,
        promises: Collection[Promise] = (),
    ) -> Self:
        """The strategy under test. Raises `AssertionError` where it does not keep to the conventions of plugins, and
        `ConfigError` for a name that no strategy has.
        """
        provider = provider_under_test(plugin, "strategy")
        with works(f"loading {provider}"):
            declared = load(provider)
            strategy = assemble([declared]).strategy
        return cls(plugin, declared, strategy, options or {}, model_options or {}, promises)

    @property
    def name(self) -> str:
        """As in the config."""
        return self.declared.provider.name

    @property
    def traits(self) -> Traits:
        """What it declares."""
        return self.strategy.traits

    @property
    def count(self) -> int:
        """How many models the checks merge."""
        fewest, most = self.traits.models
        return max(fewest, MOST if most is None else min(MOST, most))

    @property
    def merges_tensors(self) -> bool:
        """Whether it merges tensor by tensor, and does not compose its output."""
        return not self.strategy.composes

    @property
    def by_chance(self) -> bool:
        """Whether any of its hooks takes random numbers, which belong to the place of a model in the config."""
        hooks = (getattr(self.declared.module, name, None) for name in ("merge_tensor", "measure_tensor"))
        return any("random" in inspect.signature(hook).parameters for hook in hooks if hook is not None)

    def inputs(
        self, count: int | None = None, shapes: Mapping[str, Sequence[int]] = SHAPES, dtype: torch.dtype = torch.float32
    ) -> Inputs:
        """Models near each other, and a base near them if the strategy wants one."""
        start = drawn(0, shapes)
        models = [drawn(seed + 1, shapes, start, dtype) for seed in range(self.count if count is None else count)]
        return Inputs(models, drawn(0, shapes, dtype=dtype) if self.traits.wants_base else None)

    def plan(
        self, given: Inputs, what: str, weights: Sequence[float] | None = None, options: Mapping[str, Any] | None = None
    ) -> Planned:
        """The plan of merging these. what: the merge, as the subject of a sentence. Raises `AssertionError`."""
        told = [dict(self.model_options)] * len(given.models) if self.model_options else None
        with works(what):
            return plan_in_memory(
                self.plugin,
                given.models,
                given.base,
                weights if self.traits.weights else None,
                told,
                {**self.options, **(options or {})},
            )

    def merge(
        self, given: Inputs, what: str, weights: Sequence[float] | None = None, options: Mapping[str, Any] | None = None
    ) -> dict[str, torch.Tensor]:
        """The merged tensors. Raises `AssertionError` where these cannot be merged."""
        planned = self.plan(given, what, weights, options)
        with works(what):
            return planned.merge()
