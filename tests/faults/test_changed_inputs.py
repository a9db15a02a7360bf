"""Inputs that change between merges are read anew; inputs that change during one end it, and nothing is published."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import SHAPES, directory_state, random_tensors, write_model
from modelmerger import InputChangedError, MergeConfig, ModelMerger, Watch, merge
from safetensors.torch import load_file

from tests.core.plugging import install
from tests.faults.conftest import MANY
from tests.faults.stopping import staging_path


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def overwritten_in_place(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(bytes(1000))


def overwritten_with_its_time_put_back(path: Path) -> None:
    before = path.stat()
    overwritten_in_place(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def renamed_over(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    overwritten_in_place(copy)
    copy.rename(path)


def replaced_by_a_link(path: Path) -> None:
    moved = path.with_name("moved")
    path.rename(moved)
    path.symlink_to(moved)


def replaced_by_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def removed(path: Path) -> None:
    path.unlink()


CHANGES = [
    truncated,
    overwritten_in_place,
    overwritten_with_its_time_put_back,
    renamed_over,
    replaced_by_a_link,
    replaced_by_a_fifo,
    removed,
]
MOMENTS = {"before the first read": ("create", 1), "after the first write": ("write", 1), "at the end": ("fsync", 12)}


CASES = [(change, moment, False, "auto") for change in CHANGES for moment in MOMENTS]
CASES += [(change, "after the first write", True, "auto") for change in CHANGES]
CASES += [(change, "after the first write", False, "direct") for change in CHANGES]


@pytest.mark.parametrize(
    ("change", "moment", "sequential", "io"),
    CASES,
    ids=[f"{change.__name__} {moment}{', one file open' * one} {io}" for change, moment, one, io in CASES],
)
def test_an_input_that_changes_during_the_merge_ends_it(
    sharded: SimpleNamespace, change: Callable[[Path], None], moment: str, sequential: bool
) -> None:
    """C12, C13"""
    step, number = MOMENTS[moment]
    seen = []

    def disturb(name: str, _: Path) -> None:
        seen.append(name)
        if (name, seen.count(name)) == (step, number):
            change(sharded.b / "model.safetensors")

    config = sharded.config(MANY, sequential_loading=sequential)
    with pytest.raises(InputChangedError) as raised:
        merge(MergeConfig(**config), Watch(step=disturb))

    assert raised.value.exit_status == 6
    assert raised.value.problems[0].where == str(sharded.b / "model.safetensors")
    assert seen.count(step) >= number
    assert directory_state(sharded.output) is None


TRUNCATES = """
import os
from modelmerger import hookimpl

@hookimpl
def run_slices():
    if path := os.environ.get("TRUNCATED"):
        os.truncate(path, os.stat(path).st_size - 1000)
"""


def test_a_changed_input_is_exit_6_with_a_sentence_and_the_old_output_stays(
    sharded: SimpleNamespace,
    config_file: Callable[..., Path],
    refused: Callable[..., str],
    distribution: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """C12: then a merge of the shorter file is refused as what it is, and of a sound one succeeds."""
    merge(MergeConfig(**sharded.config(weight=0.7)))
    old = directory_state(sharded.output)
    path = config_file(overwrite=True)
    weights = sharded.a / "model.safetensors"
    sound = weights.read_bytes()
    install(distribution, [("plugin", "truncating", TRUNCATES)])

    with monkeypatch.context() as patch:
        patch.setenv("TRUNCATED", str(weights))
        err = refused(6, "merge", path)

    assert f"error: {weights}: " in err
    assert directory_state(sharded.output) == old
    weights.write_bytes(sound)
    report = merge(MergeConfig(**sharded.config(overwrite=True)))
    assert report.bytes_reused == 0
    assert not staging_path(sharded.output).exists()


@pytest.mark.parametrize("change", ["same size", "renamed over", "another dtype"])
def test_a_model_that_was_replaced_between_two_merges_is_read_anew(sharded: SimpleNamespace, change: str) -> None:
    """C9: by the same `ModelMerger` too."""
    merger = ModelMerger(MergeConfig(**sharded.config(5_000_000, overwrite=True)))
    merger.load_models()
    merge(MergeConfig(**merger.config.as_dict()))
    dtype = torch.float32 if change == "another dtype" else torch.bfloat16
    replaced = random_tensors(77, dtype)
    if change == "renamed over":
        write_model(sharded.folder / "new", replaced)
        (sharded.folder / "new" / "model.safetensors").rename(sharded.a / "model.safetensors")
    else:
        write_model(sharded.a, replaced)

    merge(MergeConfig(**merger.config.as_dict()))

    merged = load_file(sharded.output / "model.safetensors")
    other = load_file(sharded.b / "model.safetensors")
    for name in SHAPES:
        exact = (replaced[name].double() + other[name].double()) / 2
        torch.testing.assert_close(merged[name].double(), exact, rtol=2**-8, atol=0)
