"""When it is asked whether the output loads, and that nothing is published before that is answered."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import directory_state
from modelmerger import MergeConfig, MergePlan, ModelCompatibilityError, ModelMerger, Watch, before_publishing, merge
from modelmerger.output.parent_folder import staging_path
from modelmerger.run import run_merge

from tests.core.plugging import install

PLUGIN = """
import json, os, pathlib, time
from modelmerger import Inquiry, Problem, hookimpl

@hookimpl
def check_output(plan, configs, thorough):
    asked.append(thorough)
    yield from said
    if thorough and answer:
        argument = {{"answer": answer, "folder": {folder!r}, "names": [tensor.name for tensor in plan.tensors]}}
        yield Inquiry(__name__ + ":found", argument, "whether our server takes it")

asked, said, answer = [], [], ""

def found(argument):
    folder = pathlib.Path(argument["folder"])
    (folder / "new pid").write_text(str(os.getpid()))
    (folder / "new pid").rename(folder / "pid")
    if argument["answer"] == "late":
        while not (folder / "last block").exists():
            time.sleep(0.01)
        return [Problem(f"it takes {{len(argument['names'])}} tensors", severity="warning")]
    if argument["answer"] == "never":
        time.sleep(60)
    return [Problem("it takes none of them", "server")]
"""


@pytest.fixture
def plugin(distribution: Callable[..., Path], tmp_path: Path) -> Any:
    """The module of a plugin that asks whether a server takes the output."""
    import importlib

    (name,) = install(distribution, [("plugin", "server", PLUGIN.format(folder=str(tmp_path)))])
    return importlib.import_module(name)


@pytest.mark.parametrize(
    ("wanted", "size", "loads", "asks"),
    [
        ("auto", 4 * 10**9, False, False),
        ("auto", 4 * 10**9 + 1, False, True),
        ("auto", 1, True, True),
        (True, 1, False, True),
        (False, 10**12, True, False),
    ],
)
def test_when_what_is_costly_is_found_out(wanted: bool | str, size: int, loads: bool, asks: bool) -> None:
    settings: Any = SimpleNamespace(options=SimpleNamespace(check_loading=wanted))
    plan: MergePlan = SimpleNamespace(bytes_written=size)  # type: ignore[assignment]
    assert before_publishing.is_thorough(settings, plan, loads=loads) is asks


def test_a_check_always_asks_a_plan_and_a_small_merge_never(plugin: Any, config: dict[str, Any]) -> None:
    merger = ModelMerger(MergeConfig(**config))
    merger.check_compatibility()
    merger.plan()
    merge(MergeConfig(**config))
    assert plugin.asked == [True, False, False]


def test_the_option_decides(plugin: Any, config: dict[str, Any]) -> None:
    for wanted in (False, True):
        given = MergeConfig(**config, options={"check_loading": wanted, "overwrite": True})
        ModelMerger(given).check_compatibility()
        merge(given)
    assert plugin.asked == [True, True]


def test_the_option_is_no_part_of_the_plan(config: dict[str, Any]) -> None:
    digests = {
        ModelMerger(MergeConfig(**config, options={"check_loading": wanted})).plan().digest
        for wanted in (False, True, "auto")
    }
    assert len(digests) == 1


def test_an_error_that_costs_nothing_ends_every_merge_before_it_begins(
    plugin: Any, config: dict[str, Any], models: SimpleNamespace
) -> None:
    from modelmerger import Problem

    plugin.said[:] = [Problem("a prefix too much")]
    for run in (merge, lambda given: ModelMerger(given).plan(), lambda given: ModelMerger(given).check_compatibility()):
        with pytest.raises(ModelCompatibilityError, match="a prefix too much"):
            run(MergeConfig(**config))
    assert not models.output.exists()
    assert not staging_path(models.output).exists()


def test_a_bad_answer_leaves_the_output_as_it_was_and_nothing_beside_it(
    plugin: Any, config: dict[str, Any], models: SimpleNamespace
) -> None:
    merge(MergeConfig(**config))
    before = directory_state(models.output)
    config["models"][0]["weight"] = 0.9
    plugin.answer = "none"
    with pytest.raises(ModelCompatibilityError) as caught:
        merge(MergeConfig(**config, options={"check_loading": True, "overwrite": True}))
    assert str(caught.value) == "server: it takes none of them"
    assert caught.value.exit_status == 3
    assert directory_state(models.output) == before
    assert not staging_path(models.output).exists()


def test_nothing_is_published_before_it_is_answered(
    plugin: Any, config: dict[str, Any], models: SimpleNamespace, tmp_path: Path
) -> None:
    """The answer waits for the last block, and is in the report and in the manifest all the same."""
    plugin.answer = "late"

    def progress(done: int, total: int) -> None:
        if done == total:
            assert not models.output.exists()
            (tmp_path / "last block").touch()

    settings, hooks = MergeConfig(**config, options={"check_loading": True}).resolved()
    report = run_merge(settings, hooks, watch=Watch(progress=progress))
    assert "it takes 7 tensors" in [note.message for note in report.notes]
    notes = json.loads((models.output / "modelmerger.json").read_text())["notes"]
    assert {"severity": "warning", "message": "it takes 7 tensors"} in notes


def test_an_interrupted_merge_leaves_no_process(plugin: Any, config: dict[str, Any], tmp_path: Path) -> None:
    plugin.answer = "never"

    def progress(_: int, __: int) -> None:
        while not (tmp_path / "pid").exists():
            pass
        raise KeyboardInterrupt

    settings, hooks = MergeConfig(**config, options={"check_loading": True}).resolved()
    with pytest.raises(KeyboardInterrupt):
        run_merge(settings, hooks, watch=Watch(progress=progress))
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_bad_answer_ends_a_merge_that_is_under_way(plugin: Any, config: dict[str, Any], tmp_path: Path) -> None:
    """The process has ended by the first block; the last is never reached."""
    plugin.answer = "none"
    seen = []

    def progress(done: int, total: int) -> None:
        while not (tmp_path / "pid").exists():
            pass
        pid = int((tmp_path / "pid").read_text())
        while Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            pass
        seen.append((done, total))

    config["options"] = {"check_loading": True, "max_shard_size": 100, "sequential_loading": True}
    settings, hooks = MergeConfig(**config).resolved()
    with pytest.raises(ModelCompatibilityError, match="it takes none of them"):
        run_merge(settings, hooks, watch=Watch(progress=progress))
    assert [done < total for done, total in seen] == [True]
