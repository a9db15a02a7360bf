"""Checkpoints of a training as one entry of `models`: which are taken, in what order, and what each counts."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from modelmerger import ConfigError, InputError, MergeConfig, ModelMerger, merge
from modelmerger.testing import settings_of
from modelmerger_plugins.trainer.schedules import shares
from safetensors.numpy import load_file, save_file

STEPS = (90, 500, 1000, 1500)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trainer's output directory `run` with four checkpoints, each of which holds its step."""
    monkeypatch.chdir(tmp_path)
    for step in STEPS:
        folder = tmp_path / "run" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        save_file({"w": np.full(3, step, np.float32)}, folder / "model.safetensors")
        (folder / "config.json").write_text('{"model_type": "llama"}')
    return tmp_path / "run"


def members(**entry: Any) -> list[tuple[str, float]]:
    found = settings_of({"strategy": "weighted", "models": [entry]}).models
    assert all(isinstance(model.weight, float) for model in found)
    return [(model.path, model.weight) for model in found]  # type: ignore[misc]


def refused(**entry: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        MergeConfig(strategy="weighted", models=[entry])
    return [str(problem) for problem in error.value.problems]


def test_a_pattern_stands_for_what_it_matches_by_steps(run: Path) -> None:
    assert members(path="run/checkpoint-*", weight=2) == [(f"run/checkpoint-{step}", 0.5) for step in STEPS]
    assert members(path=f"{run}/checkpoint-?00/") == [(f"{run}/checkpoint-500", 1.0)]


def test_the_step_is_that_of_the_innermost_folder_that_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("seed1/step-1000", "seed2/step-500", "seed10/step-500", "seed1/step-20/last"):
        (tmp_path / path).mkdir(parents=True)
    assert [path for path, _ in members(path="seed*/step-*")] == [
        "seed1/step-20",
        "seed2/step-500",
        "seed10/step-500",
        "seed1/step-1000",
    ]
    assert [path for path, _ in members(path="**/last")] == ["seed1/step-20/last"]


def test_a_path_that_exists_is_no_pattern(run: Path) -> None:
    (run.parent / "run[1]").mkdir()
    (run.parent / "run1").mkdir()
    assert members(path="run[1]") == [("run[1]", 1.0)]


def test_a_pattern_that_matches_nothing_is_refused_as_a_missing_path_is(run: Path) -> None:
    with pytest.raises(InputError, match=r"run/step-\*: matches nothing\. Check the pattern\."):
        ModelMerger(MergeConfig(strategy="weighted", models=[{"path": "run/step-*"}])).plan()


def test_a_pattern_that_matches_too_much_is_refused(run: Path) -> None:
    for i in range(1001):
        (run / f"x{i}").touch()
    assert refused(path="run/x*") == ["models[0]: matches more than 1,000 paths. Give a pattern that matches fewer"]


def test_checkpoints_of_a_directory_are_the_last_ones(run: Path) -> None:
    (run / "model.safetensors").write_bytes(b"{}")  # the trainer saved the last state too
    assert members(path="run", checkpoints={}) == [(f"run/checkpoint-{step}", 0.25) for step in STEPS]
    assert members(path="run", checkpoints={"last": 2}, weight=3) == [
        ("run/checkpoint-1000", 1.5),
        ("run/checkpoint-1500", 1.5),
    ]
    assert members(path="run/checkpoint-*00", checkpoints={"last": 1}) == [("run/checkpoint-1500", 1.0)]


@pytest.mark.parametrize(
    ("checkpoints", "due"),
    [
        ({"schedule": "uniform"}, [0.25] * 4),
        ({"schedule": "linear"}, [0.1, 0.2, 0.3, 0.4]),
        ({"schedule": "ema", "decay": 0.5}, [1 / 15, 2 / 15, 4 / 15, 8 / 15]),
        ({"schedule": "ema"}, [part / 3.439 for part in (0.729, 0.81, 0.9, 1)]),
        ({"schedule": "wsm", "decay": "linear"}, [0.25] * 4),
        ({"schedule": "wsm", "decay": "cosine"}, [0.1464466, 0.3535534, 0.3535534, 0.1464466]),
        ({"schedule": "wsm"}, [0.5, 0.7071068 - 0.5, 0.8660254 - 0.7071068, 1 - 0.8660254]),
    ],
)
def test_schedules(run: Path, checkpoints: dict[str, Any], due: list[float]) -> None:
    assert [weight for _, weight in members(path="run", checkpoints=checkpoints, weight=2)] == pytest.approx(
        [2 * share for share in due]
    )


@pytest.mark.parametrize("decay", ["linear", "cosine", "inverse_sqrt"])
def test_wsm_counts_the_steps_of_a_training_as_a_decaying_rate_would_have(decay: str) -> None:
    """Against a training of plain gradient descent whose gradients do not depend on where it is."""
    count, gradients = 7, np.random.default_rng(0).normal(size=7)
    rates = {"linear": lambda t: 1 - t, "cosine": lambda t: math.cos(math.pi * t) / 2 + 0.5}
    rate = rates.get(decay, lambda t: 1 - t**0.5)
    steady = -np.cumsum(gradients)
    decayed = -sum(rate(i / count) * gradient for i, gradient in enumerate(gradients))
    assert np.dot(shares("wsm", count, decay), steady) == pytest.approx(decayed)


@pytest.mark.parametrize("schedule", ["uniform", "linear", "ema", "wsm"])
@pytest.mark.parametrize("count", [1, 2, 30, 1000])
def test_shares_come_to_one_and_none_is_negative(schedule: str, count: int) -> None:
    found = shares(schedule, count, None)
    assert len(found) == count
    assert min(found) >= 0
    assert math.fsum(found) == pytest.approx(1, abs=1e-12)


def test_what_checkpoints_cannot_be(run: Path) -> None:
    where = "models[0].checkpoints"
    assert refused(path="run", checkpoints={"last": 9}) == [
        f"{where}.last: wants the last 9 of 4 checkpoints. Give 4 at most"
    ]
    nothing = "Give a trainer's output directory, or a pattern"
    assert refused(path="gone", checkpoints={}) == [f"{where}: there are no checkpoints at gone. {nothing}"]
    assert refused(path="run/checkpoint-90", checkpoints={}) == [
        f"{where}: there are no checkpoints at run/checkpoint-90. {nothing}"
    ]
    assert refused(path="run", checkpoints={"last": 0}) == [f"{where}.last: must be in [1, 1000], got 0"]
    assert refused(path="run", checkpoints={"lst": 2}) == [f"{where}: unknown key 'lst', did you mean 'last'?"]
    assert refused(path="run", checkpoints=3) == [f"{where}: must be a mapping, got 3"]
    assert refused(path="run", checkpoints={"decay": 0.5}) == [
        f"{where}.decay: goes with the schedules ema and wsm, and this one is uniform. Leave it out"
    ]
    assert refused(path="run", checkpoints={"schedule": "wsm", "decay": 0.5}) == [
        f"{where}.decay: must be one of linear, cosine, inverse_sqrt for the schedule wsm, got 0.5"
    ]
    for decay in (0, 1, -0.5, math.nan):
        assert refused(path="run", checkpoints={"schedule": "ema", "decay": decay}) == [
            f"{where}.decay: must be between 0 and 1, got {float(decay)!r}"
        ]


def test_a_checkpoint_that_is_a_link_out_of_the_directory_is_refused(run: Path) -> None:
    (run.parent / "other").mkdir()
    (run / "checkpoint-2000").symlink_to(run.parent / "other")
    assert "is a link that leads out of the model's directory" in refused(path="run", checkpoints={})[0]


def test_a_soup_is_merged_and_plan_manifest_and_card_list_each(
    run: Path, tmp_path: Path, command: Callable[..., SimpleNamespace]
) -> None:
    config = {
        "strategy": "weighted",
        "models": [{"path": "run", "checkpoints": {"last": 3, "schedule": "linear"}, "name": "soup"}],
        "output_path": "merged",
    }
    (tmp_path / "merge.json").write_text(json.dumps(config))

    plan = json.loads(command("plan", tmp_path / "merge.json", "--json", "--no-trial").out)
    merge(config)

    names = [f"soup/checkpoint-{step}" for step in (500, 1000, 1500)]
    merged = load_file(tmp_path / "merged" / "model.safetensors")["w"]
    assert merged == pytest.approx((500 + 2 * 1000 + 3 * 1500) / 6)
    manifest = json.loads((tmp_path / "merged" / "modelmerger.json").read_text())
    assert [source["name"] for source in manifest["sources"]] == names
    assert [model["weight"] for model in manifest["config"]["models"]] == pytest.approx([1 / 6, 1 / 3, 1 / 2])
    card = (tmp_path / "merged" / "README.md").read_text()
    assert all(name in card and name in json.dumps(plan) for name in names)


def test_a_soup_of_thirty_takes_no_more_memory_than_one_of_five(tmp_path: Path) -> None:
    save_file({"w": np.ones((1024, 1024), np.float16)}, tmp_path / "one.safetensors")
    for step in range(1, 31):
        folder = tmp_path / "run" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        os.link(tmp_path / "one.safetensors", folder / "model.safetensors")

    def plan(count: int) -> Any:
        models = [{"path": str(tmp_path / "run"), "checkpoints": {"last": count}}]
        return ModelMerger(MergeConfig(strategy="weighted", models=models)).plan()

    few, many = plan(5), plan(30)
    assert many.memory == few.memory
    assert many.bytes_read == 6 * few.bytes_read  # one pass


def test_a_soup_may_be_a_model_of_another_merge(run: Path, tmp_path: Path) -> None:
    soup = {"strategy": "weighted", "models": [{"path": "run", "checkpoints": {"last": 2}}]}
    config = {
        "strategy": "task_arithmetic",
        "base_model": "run/checkpoint-90",
        "models": [{"merge": soup, "weight": 0.5}],
        "output_path": "merged",
    }
    merge(config)
    merged = load_file(tmp_path / "merged" / "model.safetensors")["w"]
    assert merged == pytest.approx(90 + 0.5 * (1250 - 90))
