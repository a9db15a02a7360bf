"""Checks of plugins that write files beside the weights."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Self

import torch
from attrs import frozen

from modelmerger.hooks.assembly import Hooks, assemble
from modelmerger.hooks.plugins import Plugin
from modelmerger.testing.checks.average import NO_CONFIG, Average, average_settings
from modelmerger.testing.checks.check import Check, works
from modelmerger.testing.checks.given import all_plugins, handed_options, plugin_under_test
from modelmerger.testing.memory import MemoryCheckpoint
from modelmerger.testing.merging import plan_in_memory
from modelmerger.values.file_identity import FileIdentity
from modelmerger.values.settings import Settings

_RESERVED = {"model.safetensors": "the weights", "modelmerger.json": "the manifest"}


@frozen(eq=False)
class SidecarsUnderTest:
    """What the checks of plugins with `write_sidecars` take."""

    declared: Plugin
    """What its module declares."""
    hooks: Hooks
    """Its hooks, and those of the plugins that are always on."""
    settings: Settings
    """The argument `settings` of hooks."""

    @classmethod
    def of(
        cls, plugin: Any, *, config: Mapping[str, Any] = NO_CONFIG, options: Mapping[str, Any] | None = None
    ) -> Self:
        """The plugin under test. config: sections of an installed one. Raises `AssertionError` without the hook."""
        declared = plugin_under_test(plugin, "plugin", "write_sidecars")
        return cls(
            declared, assemble(all_plugins(declared), handed_options(declared, options)), average_settings(2, config)
        )

    @property
    def name(self) -> str:
        """As its entry point has it."""
        return self.declared.provider.name

    def models(self) -> list[MemoryCheckpoint]:
        """What is merged."""
        config = {"model_type": "llama", "hidden_size": 4, "torch_dtype": "float32"}
        return [MemoryCheckpoint(f"model_{i}", {"w": torch.ones(4, 4) * i}, config) for i in range(2)]

    def files(self, models: list[MemoryCheckpoint], configs: Mapping[str, Any]) -> dict[str, bytes | FileIdentity]:
        """What it writes beside the merge of these. Raises `AssertionError` for what cannot be written."""
        plan = plan_in_memory(Average(), models).plan
        for model in models:
            model.reads.clear()
        with works(f"{self.name}: write_sidecars"):
            return self.hooks.output.write_sidecars(plan, models, configs, self.settings, _RESERVED)


def check_sidecars_have_plain_names(sidecars: SidecarsUnderTest) -> None:
    """Files have plain names inside the output directory, hold bytes, and take no name of the merge or of another
    installed plugin.
    """
    sidecars.files(sidecars.models(), _configs(sidecars))


def check_sidecars_are_the_same_twice(sidecars: SidecarsUnderTest) -> None:
    """The same merge has the same files: neither times nor chance nor the order of a set are in them."""
    first, second = (sidecars.files(sidecars.models(), _configs(sidecars)) for _ in range(2))
    if differing := sorted({name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}):
        raise AssertionError(
            f"{sidecars.name}: {differing[0]} is another one for the same merge. Leave out times and chance: a merge "
            "that was interrupted and goes on asks again."
        )


def check_sidecars_read_no_weights(sidecars: SidecarsUnderTest) -> None:
    """No weights are read: `check` and `plan` ask for these files too."""
    models = sidecars.models()
    sidecars.files(models, _configs(sidecars))
    if any(model.reads for model in models):
        raise AssertionError(f"{sidecars.name}: write_sidecars reads weights. Shapes and dtypes are in `plan.tensors`.")


def check_sidecars_keep_arguments(sidecars: SidecarsUnderTest) -> None:
    """Plan, models and configs stay as they are: others are handed the same."""
    models, configs = sidecars.models(), _configs(sidecars)
    before = deepcopy((configs, [model.donor.config for model in models]))
    sidecars.files(models, configs)
    if (configs, [model.donor.config for model in models]) != before:
        raise AssertionError(f"{sidecars.name}: write_sidecars changes the configs. Use adjust_config for that.")


def _configs(sidecars: SidecarsUnderTest) -> dict[str, Any]:
    return {"config.json": deepcopy(dict(sidecars.models()[0].donor.config or {}))}


SIDECAR_CHECKS = (
    Check(check_sidecars_have_plain_names),
    Check(check_sidecars_are_the_same_twice),
    Check(check_sidecars_read_no_weights),
    Check(check_sidecars_keep_arguments),
)
"""In the order in which they run."""
