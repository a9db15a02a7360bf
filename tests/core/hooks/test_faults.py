"""Whose fault it is: what a built-in plugin cannot take is the input's, and what another distribution does is its own."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modelmerger_plugins.compatibility as built_in
import pytest
from modelmerger import MergeConfig, PluginError, merge
from modelmerger_plugins import live

from tests.core.plugging import install

Command = Callable[..., SimpleNamespace]
Distribution = Callable[..., Path]


def raises(error: BaseException) -> Callable[..., Any]:
    def call(*_: object) -> Any:
        raise error

    return call


@pytest.fixture
def path(models: SimpleNamespace, config: dict[str, Any]) -> Path:
    path: Path = models.folder / "merge.json"
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    "error", [KeyError("x"), RecursionError(), OverflowError("too large"), OSError(5, "I/O")], ids=repr
)
def test_what_a_built_in_plugin_cannot_take_is_the_fault_of_what_it_was_given(
    path: Path, models: SimpleNamespace, command: Command, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(built_in, "empty_weights", raises(error))

    result = command("merge", path)

    assert result.status == 3
    (line,) = result.err.splitlines()
    assert line.startswith("error: a, b: cannot be handled: plugin 'compatibility' from modelmerger ")
    assert f"raised {type(error).__name__} in check_compatibility" in line
    assert not models.output.exists()


def test_another_distribution_is_blamed_for_what_it_handed_to_a_built_in_plugin(
    path: Path, command: Command, distribution: Distribution
) -> None:
    """The mapping of tensors breaks only when a built-in plugin looks at it."""
    source = """
import sys
import modelmerger

class Broken(dict):
    def values(self):
        self.look(sys._getframe(1))
        return super().values()

    def items(self):
        self.look(sys._getframe(1))
        return super().items()

    def __iter__(self):
        self.look(sys._getframe(1))
        return super().__iter__()

    def look(self, caller):
        if caller.f_globals["__name__"].startswith("modelmerger_plugins."):
            raise ZeroDivisionError("of my own")

@modelmerger.hookimpl
def view_models(checkpoints):
    views = [modelmerger.CheckpointView(checkpoint) for checkpoint in checkpoints]
    for view in views:
        view.tensors = Broken(view.tensors)
    return views
"""
    install(distribution, [("plugin", "late", source)])

    result = command("merge", path)

    assert result.status == 7
    assert "plugin 'late' from acme-merge 1.0 raised ZeroDivisionError" in result.err


def test_a_machine_without_memory_is_no_bug(path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built_in, "empty_weights", raises(MemoryError()))

    result = command("merge", path)

    assert (result.status, result.err) == (
        1,
        "error: the machine's memory does not suffice. Free some, or set low_memory_mode: true.\n",
    )


def test_a_model_in_memory_that_a_built_in_plugin_cannot_read_is_bad_input(
    models: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelmerger import InputError, MergeConfig, merge

    monkeypatch.setattr(live, "_copy", raises(RuntimeError("odd memory")))
    given = [{"path": tensors} for tensors in (models.tensors["a"], models.tensors["b"])]

    with pytest.raises(InputError, match=r"raised RuntimeError as '.*' was read: odd memory"):
        merge(MergeConfig(strategy="weighted", models=given, output_path=str(models.output)))


READS_NONE = """
from modelmerger import hookimpl
@hookimpl
def adjust_config(config, options):
    return dict(config, text=options.text)
"""
DEEP = """
from modelmerger import hookimpl
def deep(config):
    return config["absent"]
@hookimpl
def adjust_config(config):
    return deep(config)
"""


def test_options_that_a_plugin_reads_and_does_not_declare_are_missed_at_once(distribution: Callable[..., Path]) -> None:
    install(distribution, [("plugin", "careless", READS_NONE)])
    with pytest.raises(PluginError, match=r"adjust_config reads options\.text, and the plugin declares no options"):
        MergeConfig("weighted", [{"path": "a"}])


def test_the_place_in_the_code_of_a_plugin_is_said(
    distribution: Callable[..., Path], models: SimpleNamespace, config: dict[str, Any]
) -> None:
    """The innermost that is its own, whatever it called."""
    install(distribution, [("plugin", "deep", DEEP)])
    with pytest.raises(PluginError, match=r"raised KeyError in adjust_config: 'absent' \(.*\.py, line 4\)"):
        merge(MergeConfig(**config))
