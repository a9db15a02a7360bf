"""Checks of executors: whoever does the work, the files are the same, and errors come out."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from attrs import field, frozen

from modelmerger.config.resolve import resolve
from modelmerger.hooks.assembly import assemble
from modelmerger.hooks.plugins import Plugin, load
from modelmerger.hooks.providers import OF_PROCESS
from modelmerger.hooks.registry import Registry
from modelmerger.run import run_merge
from modelmerger.testing.checks.check import Check, works
from modelmerger.testing.checks.given import plugin_under_test
from modelmerger.testing.checks.strategy import drawn
from modelmerger.values.errors import NumericError

_SHAPES = {f"model.layers.{i}.weight": (40, 50) for i in range(4)}


@frozen(eq=False)
class ExecutorUnderTest:
    """What the checks of executors take."""

    declared: Plugin
    """What its module declares."""
    strategy: str
    """The installed strategy by which is merged."""
    options: Mapping[str, Any] = field(factory=dict)
    """Of the executor."""

    @classmethod
    def of(cls, plugin: Any, *, strategy: str | None = None, options: Mapping[str, Any] | None = None) -> Self:
        """The executor under test. strategy: an installed one; None for the first that measures what it merges."""
        declared = plugin_under_test(plugin, "executor", "run_slices")
        return cls(declared, strategy or _measuring_strategy(), options or {})

    @property
    def name(self) -> str:
        """As its entry point has it."""
        return self.declared.provider.name

    def merge(self, models: list[dict[str, torch.Tensor]], *, by_it: bool = True) -> dict[str, bytes]:
        """The files of weights of a merge on the disk. by_it: whether the executor does it, or the built-in one."""
        from safetensors.torch import save_file

        registry = Registry.installed()
        if self.declared.provider.distribution == OF_PROCESS:
            registry = registry.with_given([self.declared.provider])
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for number, tensors in enumerate(models):
                (folder / str(number)).mkdir()
                save_file(tensors, folder / str(number) / "model.safetensors", metadata={"format": "pt"})
            paths = [{"path": str(folder / str(number))} for number in range(len(models))]
            executing = {"executor": self.name, **self.options} if by_it else {}
            options = {"max_shard_size": 9_000, "check_loading": False, **executing}
            config = {"strategy": self.strategy, "models": paths, "output_path": str(folder / "merged")}
            settings, hooks = resolve(config | {"options": options}, registry)
            run_merge(settings, hooks)
            return {path.name: path.read_bytes() for path in sorted((folder / "merged").glob("*.safetensors"))}


def _measuring_strategy() -> str:
    """The first installed strategy that merges two models without a base, preferably one that measures them before."""
    found = []
    for provider in Registry.installed().providers:
        if provider.kind == "strategy":
            strategy = assemble([load(provider)]).strategy
            fewest, most = strategy.traits.models
            if fewest <= 2 <= (most or 2) and not strategy.traits.wants_base and not strategy.composes:
                found.append((not strategy.traits.gram, provider.name))
    if not found:
        raise AssertionError("no installed strategy merges two models without a base. Name one by `strategy`.")
    return min(found)[1]


def check_executor_makes_the_same_files(executor: ExecutorUnderTest) -> None:
    """The files of weights are those that the built-in executor makes, to the last bit."""
    models = [drawn(1, _SHAPES), drawn(2, _SHAPES)]
    what = f"{executor.name}: a merge that it executes"
    with works(what):
        found, due = executor.merge(models), executor.merge(models, by_it=False)
    if found != due:
        raise AssertionError(f"{what} has other files than one in threads. Do each task that `work.take` hands out.")


def check_executor_passes_errors_on(executor: ExecutorUnderTest) -> None:
    """What a task fails of ends the merge with that error: a NaN in a model is a NumericError that names it."""
    bad = drawn(2, _SHAPES)
    bad["model.layers.2.weight"][3, 4] = torch.nan
    what = f"{executor.name}: a merge of a model with a NaN"
    try:
        executor.merge([drawn(1, _SHAPES), bad])
    except NumericError:
        return
    except Exception as error:
        sentence = "Hand what a worker raises to `work.failed` as it is."
        raise AssertionError(f"{what} raised {type(error).__name__} and no NumericError: {error} {sentence}") from error
    raise AssertionError(f"{what} was published. Hand what a worker raises to `work.failed`.")


EXECUTOR_CHECKS = (Check(check_executor_makes_the_same_files), Check(check_executor_passes_errors_on))
"""In the order in which they run."""
