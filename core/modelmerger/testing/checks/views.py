"""Checks of views: they stand for the models that they show, and read nothing until they are read."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Self

from attrs import frozen

from modelmerger.hooks.assembly import Hooks, assemble
from modelmerger.hooks.plugins import Plugin
from modelmerger.hooks.providers import Kind
from modelmerger.inputs.loading import LoadContext
from modelmerger.testing.checks.average import average_settings
from modelmerger.testing.checks.check import Check, Tensors, works
from modelmerger.testing.checks.checkpoint_reading import assert_counted, assert_slices, assert_threads, read
from modelmerger.testing.checks.given import handed_options, plugin_under_test
from modelmerger.testing.memory import MemoryCheckpoint
from modelmerger.values.checkpoint import Checkpoint
from modelmerger.values.settings import Settings


@frozen(eq=False)
class ViewUnderTest:
    """What the checks of views take."""

    declared: Plugin
    """What its module declares."""
    hooks: Hooks
    """Its hooks alone."""
    models: Sequence[Tensors]
    """What is viewed, by name."""
    config: Mapping[str, Any] | None
    """The config.json of each."""
    settings: Settings
    """The argument `settings` of hooks."""

    @classmethod
    def of(
        cls,
        plugin: Any,
        *,
        models: Sequence[Tensors],
        config: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        settings: Settings | None = None,
        kind: Kind = "plugin",
    ) -> Self:
        """The view under test. kind: "strategy" for a strategy with this hook. Raises `AssertionError` without it."""
        declared = plugin_under_test(plugin, kind, "view_models")
        hooks = assemble([declared], handed_options(declared, options))
        return cls(declared, hooks, models, config, settings or average_settings(len(models)))

    @property
    def name(self) -> str:
        """As its entry point has it."""
        return self.declared.provider.name

    def opened(self) -> list[MemoryCheckpoint]:
        """The models, as no plugin views them."""
        return [MemoryCheckpoint(f"model_{i}", tensors, self.config) for i, tensors in enumerate(self.models)]

    def views(self, models: Sequence[Checkpoint]) -> Sequence[Checkpoint]:
        """What it shows in their place. Raises `AssertionError`."""
        with works(f"{self.name}: view_models of {len(models)} models"):
            return self.hooks.models.view_models(models, self.settings, LoadContext(settings=self.settings))


def check_views_stand_for_models(view: ViewUnderTest) -> None:
    """There are as many views as models, and each keeps the name, the files and the directory of its model; what is
    viewed stays as it is.
    """
    models = view.opened()
    before = [(dict(model.tensors), deepcopy(model.donor.config)) for model in models]
    view.views(models)
    if [(dict(model.tensors), model.donor.config) for model in models] != before:
        raise AssertionError(
            f"{view.name}: view_models changes the models that it is shown. Make views, or copies of their configs."
        )


def check_views_read_nothing(view: ViewUnderTest) -> None:
    """No weights are read to make a view: `check` and `plan` make it too."""
    models = view.opened()
    view.views(models)
    if read_ones := [model.reads[0][0] for model in models if model.reads]:
        raise AssertionError(f"{view.name}: view_models reads {read_ones[0]}. Read it when the view is read.")


def check_views_read_any_slice(view: ViewUnderTest) -> None:
    """Any part of a tensor of a view reads as that part of the whole."""
    for one in view.views(view.opened()):
        assert_slices(one, view.name)
        assert_counted(one, view.name)


def check_views_read_in_any_thread(view: ViewUnderTest) -> None:
    """Several threads that read a view at the same time read what one does."""
    for one in view.views(view.opened()):
        assert_threads(one, view.name)


def check_views_have_content(view: ViewUnderTest) -> None:
    """`content` is the same for the same view, and another one than that of the model where the numbers are others."""
    models = view.opened()
    first, second = view.views(models), view.views(view.opened())
    for model, one, again in zip(models, first, second, strict=True):
        if one.content != again.content:
            raise AssertionError(
                f"{view.name}: the same view of the same model has another content each time, so no interrupted merge "
                "could go on. Make `content` of what decides the numbers alone."
            )
        others = [n for n in one.tensors if n in model.tensors and read(one, n) != read(model, n)]
        if others and one.content == model.content and one.tensors == model.tensors:
            raise AssertionError(
                f"{view.name}: {others[0]} has other numbers than the model, and `content` is the model's, so plans "
                "could not tell them apart. Make `content` of what decides the numbers."
            )


VIEW_CHECKS = (
    Check(check_views_stand_for_models),
    Check(check_views_read_nothing),
    Check(check_views_read_any_slice),
    Check(check_views_read_in_any_thread),
    Check(check_views_have_content),
)
"""In the order in which they run."""
