"""`save_merged_model` keeps what merges keep: the target is absent, old or new, and inputs are never touched."""

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import directory_state, write_model
from modelmerger import MergeConfig, MergeError, ModelMerger, OutputError, merge, verify
from modelmerger.output.steps import Step, no_step
from modelmerger.validation.saving import save
from modelmerger.values.options.core import CoreOptions
from safetensors.torch import load_file, save_file

from tests.faults.conftest import MANY
from tests.faults.stopping import Steps, die, ended, failing, fork, spread, staging_path


class Returned(torch.nn.Module):
    """What of a returned model is saved."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(5000.0))

    def save_pretrained(self, directory: Path, **_: object) -> None:
        save_file({"weight": self.weight.detach()}, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def saving(sharded: SimpleNamespace) -> SimpleNamespace:
    """A merge, and `save(step)`, `check()` for a model as it was returned, saved to `target`."""
    config = sharded.config(MANY)
    merge(MergeConfig(**config))
    target = sharded.folder / "saved"

    def run(step: Step = no_step, **options: Any) -> None:
        save(Returned(), sharded.output, target, CoreOptions(**options), {}, step)

    return SimpleNamespace(**vars(sharded), save=run, target=target)


def test_what_is_saved_is_the_model_as_it_is_and_the_documents_of_the_merge(saving: SimpleNamespace) -> None:
    (saving.output / "stray.txt").touch()

    saving.save()

    assert torch.equal(load_file(saving.target / "model.safetensors")["weight"], torch.arange(5000.0))
    documents = {"LICENSE", "tokenizer.json", "config.json", "README.md", "modelmerger.json"}
    names = {path.name for path in saving.target.rglob("*") if path.is_file()}
    assert names == documents | {"model.safetensors"}
    verify(saving.target)
    assert sorted(os.listdir(saving.folder)) == ["a", "b", "merged", "saved"]


def test_a_path_that_is_none_is_refused(saving: SimpleNamespace) -> None:
    """A16"""
    with pytest.raises(OutputError, match="has a NUL character in it"):
        save(Returned(), saving.output, saving.folder / "a\0b", CoreOptions(), {})


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL])
def test_where_files_have_no_modes_it_is_saved_all_the_same(
    saving: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A22"""

    def lacking(path: Path, mode: int, **_: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as changed:
        changed.setattr(Path, "chmod", lacking)
        saving.save()
    verify(saving.target)


def before_and_after(saving: SimpleNamespace, overwrite: bool) -> tuple[Any, Any, int]:
    if overwrite:
        merge(MergeConfig(**(saving.config(weight=0.9) | {"output_path": str(saving.target)})))
    old, steps = directory_state(saving.target), Steps()
    saving.save(steps, overwrite=overwrite)
    new = directory_state(saving.target)
    assert new != old
    return old, new, len(steps.seen)


def back_to(saving: SimpleNamespace, old: dict[str, bytes] | None) -> None:
    shutil.rmtree(saving.target, ignore_errors=True)
    for name, content in (old or {}).items():
        (saving.target / name).parent.mkdir(parents=True, exist_ok=True)
        (saving.target / name).write_bytes(content)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_leaves_the_target_absent_old_or_new_and_nothing_after_the_next_run(
    saving: SimpleNamespace, overwrite: bool
) -> None:
    """A1, A12"""
    old, new, count = before_and_after(saving, overwrite)
    for at in spread(count, 10):
        back_to(saving, old)
        step = Steps(at, die)

        assert ended(fork(lambda step=step: saving.save(step, overwrite=overwrite))) == -signal.SIGKILL

        found = directory_state(saving.target)
        assert found in (old, new), at
        if found == new and not overwrite:
            with pytest.raises(OutputError, match="exists already"):
                saving.save()
        else:
            saving.save(overwrite=overwrite)
        assert directory_state(saving.target) == new
        assert sorted(os.listdir(saving.folder)) == ["a", "b", "merged", "saved"], at


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_whatever_fails_is_an_output_error_and_the_target_stays_as_it_was(
    saving: SimpleNamespace, overwrite: bool, number: int
) -> None:
    """A2, A5"""
    old, new, count = before_and_after(saving, overwrite)
    for at in spread(count, 12):
        back_to(saving, old)
        said = None
        try:
            saving.save(Steps(at, failing(number)), overwrite=overwrite)
        except OutputError as error:
            said = str(error)
        assert directory_state(saving.target) == (old if said else new), at
        assert said is None or "Traceback" not in said


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """For no longer than it takes: the tests themselves may write to a larger file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_safetensors_cannot_write_is_an_output_error(saving: SimpleNamespace) -> None:
    """A2"""
    with pytest.raises(OutputError, match="cannot be written: File too large"), small_files():
        saving.save()
    assert not saving.target.exists()


def test_no_room_is_said_before_anything_is_written(saving: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A4"""
    full = SimpleNamespace(f_bavail=1, f_frsize=1024)
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    steps = Steps()

    with pytest.raises(OutputError, match=r"are needed and 1\.0 KiB are free"):
        saving.save(steps)
    assert steps.seen == []


def test_two_at_once_give_one_whole_output(saving: SimpleNamespace) -> None:
    """A10: a merge and a saving have the same lock."""

    def meanwhile(name: str, path: Path) -> None:
        if (name, path.name) == ("write", "model"):
            with pytest.raises(OutputError, match="is being written by another merge"):
                saving.save()

    saving.save(meanwhile)

    verify(saving.target)


def test_an_unfinished_merge_in_the_way_is_removed_and_named(saving: SimpleNamespace) -> None:
    """A8"""
    config = saving.config() | {"output_path": str(saving.target)}

    def stop(name: str, _: Path) -> None:
        if name == "rename":
            raise KeyboardInterrupt

    from modelmerger import Watch

    with pytest.raises(KeyboardInterrupt):
        merge(MergeConfig(**config), Watch(step=stop))
    assert staging_path(saving.target).exists()

    notes = save(Returned(), saving.output, saving.target, CoreOptions(), {})

    assert any("unfinished merge" in str(note) for note in notes)
    assert not staging_path(saving.target).exists()


def test_files_of_somebody_are_kept_or_refused(saving: SimpleNamespace) -> None:
    """A13"""
    saving.save()
    (saving.target / "notes.txt").write_text("mine")

    with pytest.raises(OutputError, match=r"notes\.txt: was put there by no merge"):
        saving.save(overwrite=True)
    saving.save(overwrite=True, keep_extra=True)

    assert (saving.target / "notes.txt").read_text() == "mine"
    assert json.loads((saving.target / "modelmerger.json").read_text())["extra"] == ["notes.txt"]
    verify(saving.target)


@pytest.fixture
def adapted(tmp_path: Path) -> SimpleNamespace:
    """An adapter whose own config names its base, which is an earlier output."""
    names = [f"model.layers.{i}.self_attn.q_proj.weight" for i in range(2)]
    write_model(tmp_path / "source", {name: torch.randn(16, 8) for name in names}, config=None)
    base = tmp_path / "base"
    merge(MergeConfig(strategy="weighted", models=[{"path": str(tmp_path / "source")}], output_path=str(base)))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    factors = {
        f"base_model.model.{name.removesuffix('.weight')}.lora_{factor}.weight": torch.ones(shape)
        for name in names
        for factor, shape in (("A", (2, 8)), ("B", (16, 2)))
    }
    save_file(factors, adapter / "adapter_model.safetensors")
    said = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": str(base),
    }
    (adapter / "adapter_config.json").write_text(json.dumps(said))
    return SimpleNamespace(folder=tmp_path, base=base, adapter=adapter)


def no_further(target: Path, run: Callable[[], object]) -> None:
    before = directory_state(target.parent)
    with pytest.raises(OutputError, match=r"is, contains or lies in the input|, which a merge wrote"):
        run()
    assert directory_state(target.parent) == before


@pytest.mark.parametrize("place", ["", "inside"])
def test_the_base_that_an_adapter_names_is_an_input(adapted: SimpleNamespace, place: str) -> None:
    """A14"""
    target = adapted.base / place
    models = [{"path": str(adapted.adapter)}]
    merger = ModelMerger(MergeConfig(strategy="weighted", models=models, options={"overwrite": True}))
    merged = merger.merge()

    no_further(target, lambda: merger.save_merged_model(merged, target))
    config = MergeConfig(strategy="weighted", models=models, options={"overwrite": True}, output_path=str(target))
    no_further(target, lambda: merge(config))


def test_the_texts_of_the_validation_and_the_config_are_inputs(
    sharded: SimpleNamespace, refused: Callable[..., str]
) -> None:
    """A14"""
    merge(MergeConfig(**sharded.config(weight=0.9)))
    for name, key in (("texts.txt", "validation.dataset"), ("merge.json", "the config")):
        inside = sharded.output / name
        config = sharded.config(overwrite=True, keep_extra=True)
        config["validation"] = (
            {"run_tests": False, "dataset": str(sharded.output / "texts.txt")} if "txt" in name else {}
        )
        path = inside if name == "merge.json" else sharded.folder / "elsewhere.json"
        inside.write_text("a text\n")
        path.write_text(json.dumps(config))
        before = directory_state(sharded.output)

        err = refused(4, "merge", path)

        assert f"is, contains or lies in the input '{key}'" in err
        with pytest.raises(OutputError, match="is, contains or lies in the input"):
            merge(MergeConfig.from_file(path))
        assert directory_state(sharded.output) == before
        inside.unlink()


def test_a_trainers_checkpoint_is_an_input(sharded: SimpleNamespace) -> None:
    """A14: the config names the directory around it."""
    runs = sharded.folder / "runs"
    runs.mkdir()
    sharded.a.rename(runs / "checkpoint-30")
    config = sharded.config() | {"models": [{"path": str(runs)}, {"path": str(sharded.b)}]}
    merger = ModelMerger(MergeConfig(**config))
    merge(merger.config)
    for target in (runs / "checkpoint-30", runs / "checkpoint-30" / "merged", sharded.folder):
        with pytest.raises(OutputError, match="is, contains or lies in the input"):
            merge(MergeConfig(**(config | {"output_path": str(target)})))


def test_what_is_no_model_is_a_sentence(saving: SimpleNamespace) -> None:
    with pytest.raises(MergeError, match="cannot save str: it is no model"):
        save("a model", saving.output, saving.target, CoreOptions(), {})
