"""A merge where it does not matter which: the average of some models."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from modelmerger.hooks.markers import hookimpl
from modelmerger.testing.handed import settings_of
from modelmerger.values.settings import Settings
from modelmerger.values.traits import Traits

NO_CONFIG: Mapping[str, Any] = MappingProxyType({})


class Average:
    """The mean of the models: what is merged where the strategy does not matter."""

    traits = Traits(models=(1, None))

    @hookimpl
    def find_coefficients(self, weights: Any) -> list[float]:
        """One share a model."""
        return [1 / len(weights)] * len(weights)


def average_settings(count: int, config: Mapping[str, Any] = NO_CONFIG) -> Settings:
    """The argument `settings` of hooks in an average of models named `model_0` and so on. config: further keys."""
    models = [{"path": f"./{i}", "name": f"model_{i}"} for i in range(count)]
    return settings_of({"strategy": Average(), "models": models, **config})
