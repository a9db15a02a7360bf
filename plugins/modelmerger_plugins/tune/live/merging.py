"""Merges at any numbers, in memory, with the models open."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelmerger import MergeConfig, ModelMerger

from modelmerger_plugins.tune.opened import Opened


class InMemory:
    """Makes whole models, and keeps the sources open."""

    def __init__(self, opened: Opened, validation: Mapping[str, Any] | None = None) -> None:
        """validation: measured after each merge, if given."""
        self._opened, self._validation = opened, dict(validation or {})

    @property
    def merger(self) -> ModelMerger:
        """The merger, with what it found of the last merge."""
        return self._opened.merger

    def at(self, vector: Sequence[float]) -> Any:
        """The model at these numbers."""
        return self._merged(self._opened.space.config_at(vector))

    def source(self, model: int) -> Any:
        """One of the models, by its number in the plan; an adapter is folded into its base."""
        given = self._opened.read.given
        planned = self._opened.plan.models[model]
        entries = given["models"]
        one = (
            {"path": planned.path}
            if model >= len(entries)
            else {k: entries[model][k] for k in ("path", "merge", "layers") if k in entries[model]}
        )
        rest = {
            key: value for key, value in given.items() if key not in ("models", "base_model", "options", "strategy")
        }
        return self._merged({**rest, "strategy": "weighted", "models": [one]})

    def _merged(self, config: Mapping[str, Any]) -> Any:
        kept = {key: value for key, value in config.items() if key not in ("output_path", "validation")}
        if self._validation:
            kept["validation"] = self._validation
        self.merger.config = MergeConfig.from_dict(kept)
        return self.merger.merge(progress=False)
