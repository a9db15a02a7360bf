"""Plugins that observe slices: what they find is summed, and one that fails spoils no merge."""

import logging
from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from modelmerger.hooks.answers import are_finite, is_list_of, versions
from modelmerger.hooks.calls import Calls
from modelmerger.values.errors import PluginError, Problem
from modelmerger.values.settings import Settings

if TYPE_CHECKING:
    import torch

log = logging.getLogger("modelmerger")


@frozen(eq=False, repr=False)
class Observers:
    """The plugins of a run that observe slices."""

    calls: Calls
    """The plugins of the run."""
    _failed: set[str] = field(factory=set, init=False, repr=False)

    def wanted(self, settings: Settings) -> frozenset[str]:
        """The keys of the plugins whose `observe_slice` is called: none for a merge within another one."""
        if settings.where:
            return frozenset()
        wants = self.calls.ask_each("wants_slices", settings=settings)
        for name, wanted in wants:
            if not isinstance(wanted, bool):
                raise self.calls.wrong_answer("wants_slices", wanted, "True or False", name)
        declined = {name for name, wanted in wants if not wanted}
        return frozenset(self.calls.plugins_with("observe_slice")) - declined

    def observe(
        self,
        observers: Container[str],
        tensors: Sequence["torch.Tensor"],
        merged: "torch.Tensor",
        tensor_name: str,
        inputs: Sequence[int],
        settings: Settings,
    ) -> Mapping[str, float]:
        """The statistics of the observers for a slice, each by its plugin's key and its own name.

        Of one that fails, its key alone: what it found in other slices is no sum then, see `total_observed`.
        """
        arguments = {"tensors": tensors, "merged": merged, "tensor_name": tensor_name, "inputs": inputs}
        found: dict[str, float] = {}
        for plugin in self.calls.plugins_with("observe_slice"):
            if plugin in observers:
                before = versions([*tensors, merged])
                try:
                    answer = self.calls.ask_one("observe_slice", plugin, settings=settings, **arguments)
                    found |= {f"{plugin}: {key}": value for key, value in self._numbers(answer, plugin).items()}
                except PluginError as error:
                    found[plugin] = 1
                    self._tell(plugin, error)
                if versions([*tensors, merged]) != before:
                    message = f"{self.calls.providers[plugin]}: observe_slice changed what it was shown"
                    raise PluginError(Problem(f"{message}; make new tensors.", tensor=tensor_name))
        return found

    def _numbers(self, found: Any, plugin: str) -> Mapping[str, float]:
        numbers = list(found.values()) if isinstance(found, Mapping) else [found or 0]
        if not is_list_of((int, float), numbers) or not are_finite(numbers):
            due = "finite numbers by name" if is_list_of((int, float), numbers) else "numbers by name"
            raise self.calls.wrong_answer("observe_slice", found, due, plugin)
        return found or {}

    def _tell(self, plugin: str, error: PluginError) -> None:
        """Says once of an observer that it failed, and how."""
        if plugin not in self._failed:
            self._failed.add(plugin)
            for problem in error.problems:
                log.warning("%s The merge goes on without what it observes.", str(problem).rstrip(".") + ".")
