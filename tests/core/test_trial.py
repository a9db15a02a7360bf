"""A merge that is tried out: the memory that `plan` then says, beside that of the merge; and trials that fail."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import random_tensors, write_model
from modelmerger import MergeConfig, Problem
from modelmerger.config.resolve import resolve
from modelmerger.engine.merged_checkpoint import MergedCheckpoint
from modelmerger.planning.outlook.trial import Trial, with_trial
from modelmerger.planning.prepared import prepare
from modelmerger.trial import try_out

from tests.core.plugging import install

SHAPES = {"model.embed_tokens.weight": (2000, 512)} | {
    f"model.layers.{layer}.{name}": shape
    for layer in range(6)
    for name, shape in (("mlp.weight", (2048, 1024)), ("attention.weight", (512, 512)), ("norm.weight", (512,)))
}
STRATEGIES = Path(__file__).parents[2] / "benchmarks" / "strategies"
RUN = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(status, usage.ru_maxrss * 1024)
"""
ENDING = """
import os, sys, time
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, None))

@hookimpl
def merge_tensor(tensors):
    {body}
    return tensors[0].clone()
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and two fine-tunes of 32 MB."""
    folder = tmp_path_factory.mktemp("sources")
    base = random_tensors(0, shapes=SHAPES)
    for number, name in enumerate(("base", "a", "b")):
        write_model(folder / name, random_tensors(number, shapes=SHAPES, near=base), config=None)
    return folder


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("weighted", {}),
        pytest.param("weighted", {"geometry": True, "low_memory_mode": True}, marks=pytest.mark.long),
        pytest.param("weighted", {"use_safetensors": False}, marks=pytest.mark.long),
        pytest.param("sequential", {}, marks=pytest.mark.long),
        pytest.param("task_arithmetic", {"clamp_weights": True}, marks=pytest.mark.long),
        pytest.param("slerp", {}, marks=pytest.mark.long),
        ("ties", {}),
        ("spectral", {}),
    ],
)
def test_what_is_planned_is_never_less_than_what_is_taken_and_little_more(
    sources: Path, tmp_path: Path, strategy: str, options: dict[str, Any]
) -> None:
    models: list[dict[str, Any]] = [{"path": str(sources / "a")}, {"path": str(sources / "b"), "weight": 0.5}]
    config: dict[str, Any] = {"strategy": strategy, "models": models, "options": options}
    if strategy in ("task_arithmetic", "ties"):
        config["base_model"] = str(sources / "base")
    file = tmp_path / "merge.json"
    file.write_text(json.dumps(config | {"output_path": str(tmp_path / "merged")}))
    plugin = STRATEGIES / f"{strategy}.py"
    told = [str(file), *(["--plugin", str(plugin)] if plugin.exists() else [])]
    program = [sys.executable, "-m", "modelmerger"]

    plan = json.loads(subprocess.run([*program, "plan", "--json", *told], stdout=subprocess.PIPE, check=True).stdout)
    # what ran the merge before counts as its peak, so that must be small
    done = subprocess.run([sys.executable, "-c", RUN, *program, "merge", *told], stdout=subprocess.PIPE, check=True)
    status, peak = map(int, done.stdout.split())

    assert (status, plan["tried"]) == (0, True), plan["notes"]
    assert peak <= plan["memory"] <= 1.15 * peak
    assert plan["memory"] == sum(plan["memory_parts"].values())


def test_a_trial_changes_the_memory_of_a_plan_and_not_its_digest(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    settings, hooks = resolve(config)
    with prepare(settings, hooks, merged=MergedCheckpoint) as ready:
        trial = try_out(ready)
        assert isinstance(trial, Trial)
        plan = with_trial(ready.plan, trial)
        assert (plan.digest, plan.tensors, plan.layout) == (ready.plan.digest, ready.plan.tensors, ready.plan.layout)
    assert plan.tried
    assert plan.memory > trial.process + trial.workers
    assert trial.computing > 0


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os._exit(3)", "its process ended with status 3"),
        ("os.kill(os.getpid(), 9)", "its process ended with status -9"),
        ("time.sleep(600)", "it took more than 1 s"),
        ("raise ValueError('no')", "strategy 'ending' from acme-merge 1.0 raised ValueError in merge_tensor: no"),
        ("print('{}'); sys.stdout.flush()", None),
    ],
)
def test_a_trial_that_fails_is_a_note(
    models: SimpleNamespace,
    config: dict[str, Any],
    distribution: Callable[..., Path],
    body: str,
    reason: str | None,
) -> None:
    install(distribution, [("strategy", "ending", ENDING.format(body=body))])
    settings, hooks = resolve(config | {"strategy": "ending"})
    with prepare(settings, hooks, merged=MergedCheckpoint) as ready:
        found = try_out(ready, patience=1 if "sleep" in body else 100)
    if reason is None:
        assert isinstance(found, Trial)
        return
    assert isinstance(found, Problem)
    assert found.severity == "note"
    assert "the strategy was not tried out" in found.message
    assert reason in found.message


def test_a_program_that_is_no_interpreter_is_not_started(
    models: SimpleNamespace, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "blender"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    settings, hooks = resolve(config)
    with prepare(settings, hooks, merged=MergedCheckpoint) as ready:
        found = try_out(ready)
    assert isinstance(found, Problem)
    assert found.message.endswith("no process can be started: this program is no Python interpreter.")
    assert not (tmp_path / "started").exists()


def test_models_in_memory_are_not_tried(models: SimpleNamespace) -> None:
    live = MergeConfig(strategy="weighted", models=[{"path": models.tensors["a"]}, {"path": str(models.b)}])
    settings, hooks = live.resolved()
    with prepare(settings, hooks, merged=MergedCheckpoint) as ready:
        found = try_out(ready)
    assert isinstance(found, Problem)
    assert "models in memory are merged" in found.message


def test_plan_says_that_nothing_was_tried(
    command: Callable[..., SimpleNamespace], models: SimpleNamespace, config: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "merge.json"
    file.write_text(json.dumps(config))
    plan = json.loads(command("plan", file, "--no-trial", "--json").out)
    assert not plan["tried"]
    assert plan["memory"] == sum(plan["memory_parts"].values())
    assert os.listdir(tmp_path) == ["merge.json"] or models.output.exists() is False


def test_the_table_of_planned_memory_has_every_built_in_strategy_with_a_config_that_holds() -> None:
    code = (
        "import planned, modelmerger as m\n"
        "for name, traits, _ in planned.built_in():\n"
        "    m.MergeConfig(**planned.config_of(name, traits, ['a', 'b'], 'base'))\n"
        "    print(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=STRATEGIES.parent, capture_output=True, text=True, check=True
    )
    built_in = [one.name for one in entry_points(group="modelmerger.strategies") if one.dist.name == "modelmerger"]
    assert done.stdout.split() == sorted(built_in)
