"""What trainers leave behind: a checkpoint with its pickles is a model, and so is the directory that holds the checkpoints."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import directory_state, write_model
from inputs.watching import watched
from modelmerger import InputError, Location, MergeConfig, ModelMerger, ModelReference, merge
from modelmerger_plugins import trainer

LEFT = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt", "training_args.bin", "random_states_0.pkl")


def checkpoint(folder: Path, tensors: Any, **state: Any) -> Path:
    """A checkpoint directory as a trainer writes it."""
    write_model(folder, tensors)
    for name in LEFT:
        (folder / name).write_bytes(b"a pickle")
    (folder / "trainer_state.json").write_text(json.dumps(state))
    return folder


def located(path: Path) -> Location | None:
    return trainer.locate_model(ModelReference(str(path), "model", "models[0].path"))


@pytest.fixture
def run(models: SimpleNamespace) -> Path:
    """A trainer's output directory with checkpoints 500, 1000 (`a`) and 90."""
    for step, name in ((500, "base"), (1000, "a"), (90, "base")):
        checkpoint(models.folder / "run" / f"checkpoint-{step}", models.tensors[name])
    (models.folder / "run" / "runs").mkdir()
    (models.folder / "run" / "training_args.bin").write_bytes(b"a pickle")
    folder: Path = models.folder / "run"
    return folder


def test_a_checkpoint_is_a_model_and_what_lies_beside_it_is_neither_read_nor_copied(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    folder = checkpoint(models.folder / "checkpoint-500", models.tensors["a"], best_model_checkpoint="checkpoint-1")
    config["models"][0]["path"] = str(folder)

    with watched() as seen:
        merge(MergeConfig(**config))

    read = {path.removeprefix(f"{folder}/") for path in seen.opened_in(folder)}
    assert {"model.safetensors", "config.json"} <= read
    assert not read & {*LEFT, "trainer_state.json"}
    assert directory_state(models.output).keys() == {
        "README.md",
        "config.json",
        "model.safetensors",
        "modelmerger.json",
    }


def test_an_output_directory_stands_for_its_last_checkpoint_and_a_note_says_so(
    models: SimpleNamespace, run: Path, config: dict[str, Any], command: Callable[..., SimpleNamespace]
) -> None:
    config["models"][0]["path"] = str(run)
    path = models.folder / "merge.json"
    path.write_text(json.dumps(config))
    said = f"{run}: has no weights of its own; of its 3 checkpoints the last, checkpoint-1000, is taken."

    result = command("check", path)
    report = merge(MergeConfig(**config))

    assert f"note: {said}\n" in result.err
    assert said in [str(note) for note in report.notes]
    assert (models.output / "config.json").exists()
    plain = {**config, "models": [{"path": str(models.a), "weight": 0.6}, config["models"][1]]}
    plain["output_path"] = str(models.folder / "plain")
    merge(MergeConfig(**plain))
    merged = [folder / "model.safetensors" for folder in (models.output, models.folder / "plain")]
    assert merged[0].read_bytes() == merged[1].read_bytes()


def test_the_name_is_the_output_directorys(run: Path) -> None:
    models = ModelMerger(MergeConfig(strategy="weighted", models=[{"path": str(run)}])).load_models()

    assert list(models) == ["run"]
    assert models["run"].donor.directory == run / "checkpoint-1000"


@pytest.mark.parametrize("best", ["checkpoint-500", "./elsewhere/run/checkpoint-500", "/gone/run/checkpoint-500"])
def test_the_best_checkpoint_is_named_and_not_taken(run: Path, models: SimpleNamespace, best: str) -> None:
    checkpoint(run / "checkpoint-1000", models.tensors["a"], best_model_checkpoint=best)

    found = located(run)

    assert found.directory == run / "checkpoint-1000"
    assert found.notes[0].message.endswith(
        f" Its trainer_state.json says that checkpoint-500 is the best: give {run}/checkpoint-500 to take that one."
    )


@pytest.mark.parametrize(
    "state",
    [
        b'{"best_model_checkpoint": "run/checkpoint-1000"}',
        b'{"best_model_checkpoint": "run/checkpoint-7"}',
        b'{"best_model_checkpoint": "../a"}',
        b'{"best_model_checkpoint": null}',
        b'{"best_model_checkpoint": ["checkpoint-500"]}',
        b"{}",
        b"[]",
        b"not JSON",
        b"\xff",
        b"[" * 100_000,
        b"",
        None,
    ],
)
def test_where_no_other_checkpoint_is_the_best_nothing_is_said_of_it(run: Path, state: bytes | None) -> None:
    path = run / "checkpoint-1000" / "trainer_state.json"
    path.unlink()
    if state is not None:
        path.write_bytes(state)

    assert "best" not in located(run).notes[0].message


@pytest.mark.parametrize(
    "name", ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "adapter_config.json"]
)
def test_a_directory_with_weights_of_its_own_stands_for_itself(run: Path, name: str) -> None:
    (run / name).write_bytes(b"{}")

    assert located(run) is None


def test_a_single_checkpoint_is_counted_as_one(run: Path) -> None:
    for step in (90, 500):
        (run / f"checkpoint-{step}").rename(run / f"old-{step}")

    assert "of its 1 checkpoint the last" in located(run).notes[0].message


@pytest.mark.parametrize("names", [(), ("checkpoint-",), ("checkpoint-x",), ("my-checkpoint-5",), ("checkpoint-٥",)])
def test_a_directory_without_checkpoints_is_not_a_trainers(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).mkdir()

    assert located(tmp_path) is None
    assert located(tmp_path / "absent") is None


def test_a_last_checkpoint_without_weights_is_refused_by_its_own_name(run: Path) -> None:
    """Stopped while it was written: the pickles beside it are not taken for weights."""
    (run / "checkpoint-1000" / "model.safetensors").unlink()

    with pytest.raises(InputError, match=r"run/checkpoint-1000: has no safetensors weights"):
        ModelMerger(MergeConfig(strategy="weighted", models=[{"path": str(run)}])).plan()


def test_a_checkpoint_that_is_a_link_out_of_the_directory_is_refused(run: Path, models: SimpleNamespace) -> None:
    (run / "checkpoint-2000").symlink_to(models.b)

    with pytest.raises(InputError, match="is a link that leads out of the model's directory"):
        located(run)
    (run / "checkpoint-2000").unlink()
    (run / "checkpoint-2000").symlink_to("checkpoint-500")
    assert located(run).directory == run / "checkpoint-500"
