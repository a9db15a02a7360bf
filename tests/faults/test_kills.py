"""A merge that is killed leaves the output absent, old or new, and the next run finishes it."""

import importlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import directory_state
from modelmerger import MergeConfig, Watch, merge, verify

from tests.core.plugging import WEIGHTS_SQUARED, install
from tests.faults.conftest import FEW, MANY, both_ways
from tests.faults.stopping import Steps, die, ended, fork, killed_merge, spread, staging_path

SCENARIOS = {"new output": (None, FEW), "fewer shards than before": (MANY, FEW), "more shards than before": (FEW, MANY)}


def kill_everywhere(sharded: SimpleNamespace, before: int | None, after: int, most: int) -> None:
    """Kills merges at up to `most` steps and looks at the output after each, and after the run that follows."""
    old_copy = sharded.folder / "old"
    if before is not None:
        merge(MergeConfig(**sharded.config(before, weight=0.7)))
        shutil.copytree(sharded.output, old_copy)
    old = directory_state(sharded.output)
    config = sharded.config(after, overwrite=before is not None)
    steps = Steps()
    merge(MergeConfig(**config), Watch(step=steps))
    new = directory_state(sharded.output)
    assert new is not None
    assert new != old

    for at in spread(len(steps.seen), most):
        shutil.rmtree(sharded.output)
        if before is not None:
            shutil.copytree(old_copy, sharded.output)

        assert killed_merge(config, at) == -signal.SIGKILL

        where = f"killed at step {at}, {steps.seen[at - 1]}"
        found = directory_state(sharded.output)
        assert found in (old, new), where
        if found == new:
            verify(sharded.output)
        merge(MergeConfig(**config))
        assert directory_state(sharded.output) == new, where
        assert not staging_path(sharded.output).exists(), where


@pytest.mark.parametrize(
    ("before", "after", "io"),
    [(*numbers, "buffered") for numbers in SCENARIOS.values()] + [(FEW, MANY, "direct")],
    ids=[*SCENARIOS, "more shards than before, directly"],
)
def test_a_kill_leaves_the_output_absent_old_or_new_and_a_second_run_succeeds(
    sharded: SimpleNamespace, before: int | None, after: int
) -> None:
    """A1, A12"""
    kill_everywhere(sharded, before, after, most=6)


@pytest.mark.long
@both_ways
@pytest.mark.parametrize(("before", "after"), SCENARIOS.values(), ids=SCENARIOS)
def test_a_kill_at_any_step_at_all(sharded: SimpleNamespace, before: int | None, after: int) -> None:
    """A1, A12"""
    kill_everywhere(sharded, before, after, most=10_000)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_after_the_rename_leaves_only_the_clearing_up(sharded: SimpleNamespace, overwrite: bool) -> None:
    """A1: the output has its name already, so the second run merges nothing, and says so."""
    if overwrite:
        merge(MergeConfig(**sharded.config(MANY, weight=0.7)))
    config = sharded.config(overwrite=overwrite)
    rename = step_number(sharded, config, "rename")
    assert killed_merge(config, rename + 2) == -signal.SIGKILL
    published = directory_state(sharded.output)
    inode = sharded.output.stat().st_ino

    steps = Steps()
    report = merge(MergeConfig(**config), Watch(step=steps))

    assert report.bytes_reused == report.bytes_written > 0
    assert any("published by an earlier run" in str(note) for note in report.notes)
    assert {name for name, _ in steps.seen} == {"fsync", "remove"}
    assert sharded.output.stat().st_ino == inode
    assert directory_state(sharded.output) == published
    assert not staging_path(sharded.output).exists()


def test_a_damaged_output_is_merged_again_though_its_plan_is_the_same(sharded: SimpleNamespace) -> None:
    """A1: an overwrite of an output by its own plan, killed before the rename, is not taken for published."""
    config = sharded.config(overwrite=True)
    merge(MergeConfig(**config))
    sound = directory_state(sharded.output)
    weights = sharded.output / "model-00001-of-00002.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    for at in (2, step_number(sharded, config, "rename")):
        assert killed_merge(config, at) == -signal.SIGKILL
        assert directory_state(sharded.output) != sound

    merge(MergeConfig(**config))

    assert directory_state(sharded.output) == sound


def step_number(sharded: SimpleNamespace, config: dict[str, object], name: str) -> int:
    """The number of the first step of that name, in a merge of this config to another output that is like it."""
    other = sharded.folder / "rehearsal" / "merged"
    other.parent.mkdir(exist_ok=True)
    if sharded.output.exists() and not other.exists():
        shutil.copytree(sharded.output, other)
    steps = Steps()
    merge(MergeConfig(**(config | {"output_path": str(other)})), Watch(step=steps))
    return 1 + [step for step, _ in steps.seen].index(name)


def test_finished_shards_are_not_computed_again(sharded: SimpleNamespace) -> None:
    """A7"""
    config = sharded.config(MANY)
    steps = Steps()
    merge(MergeConfig(**config), Watch(step=steps))
    uninterrupted = directory_state(sharded.output)
    shutil.rmtree(sharded.output)
    journalled = [number for number, (name, _) in enumerate(steps.seen, 1) if name == "journal"]
    assert killed_merge(config, journalled[3]) == -signal.SIGKILL  # a header and two blocks stand in the journal

    second = Steps()
    report = merge(MergeConfig(**config), Watch(step=second))

    kept = [f"model-0000{number}-of-00004.safetensors" for number in (1, 2)]
    assert report.bytes_reused == sum((sharded.output / name).stat().st_size for name in kept)
    written = {path.name for name, path in second.seen if name == "write"}
    assert "model-00003-of-00004.safetensors" in written
    assert not written & set(kept)
    assert directory_state(sharded.output) == uninterrupted


@pytest.mark.parametrize(("first", "then"), [("buffered", "direct"), ("direct", "buffered")])
def test_what_was_begun_one_way_goes_on_the_other(sharded: SimpleNamespace, first: str, then: str) -> None:
    """A7: past the page cache or through it, the plan is the same, and so is every byte."""
    begun, going_on = sharded.config(MANY, io=first), sharded.config(MANY, io=then)
    steps = Steps()
    merge(MergeConfig(**begun), Watch(step=steps))
    uninterrupted = directory_state(sharded.output)
    shutil.rmtree(sharded.output)
    journalled = [number for number, (name, _) in enumerate(steps.seen, 1) if name == "journal"]
    assert killed_merge(begun, journalled[3]) == -signal.SIGKILL

    report = merge(MergeConfig(**going_on))

    assert 0 < report.bytes_reused < report.bytes_written
    assert directory_state(sharded.output) == uninterrupted


def test_a_second_kill_keeps_what_the_first_run_and_the_second_made(sharded: SimpleNamespace) -> None:
    """A7: also where the first kill tore a line of the journal."""
    config = sharded.config(MANY)
    steps = Steps()
    merge(MergeConfig(**config), Watch(step=steps))
    uninterrupted = directory_state(sharded.output)
    shutil.rmtree(sharded.output)
    journalled = [number for number, (name, _) in enumerate(steps.seen, 1) if name == "journal"]
    killed_merge(config, journalled[2])
    with (staging_path(sharded.output) / "journal").open("ab") as journal:
        journal.write(b'{"file": 1, "blo')
    resumed = Steps()
    child = fork(
        lambda: merge(MergeConfig(**config), Watch(step=lambda n, p: die_at_third_journal_line(resumed, n, p))) and None
    )
    assert ended(child) == -signal.SIGKILL

    report = merge(MergeConfig(**config))

    assert report.bytes_reused == sum(
        (sharded.output / f"model-0000{number}-of-00004.safetensors").stat().st_size for number in (1, 2)
    )
    assert directory_state(sharded.output) == uninterrupted


def die_at_third_journal_line(steps: Steps, name: str, path: Path) -> None:
    """The first line of a resumed run ends a torn one, the second is of a block, the third is not written any more."""
    steps(name, path)
    if [step for step, _ in steps.seen].count("journal") == 3:
        die()


CHANGES = ["input", "weight", "torch_dtype", "shard size", "strategy"]


@pytest.mark.parametrize("change", CHANGES)
def test_an_unfinished_merge_of_another_plan_is_not_used(
    sharded: SimpleNamespace, change: str, distribution: Callable[..., Path]
) -> None:
    """A8"""
    (module,) = install(distribution, [("strategy", "acme", WEIGHTS_SQUARED)])
    config = sharded.config(MANY) | ({"strategy": "acme"} if change == "strategy" else {})
    steps = Steps()
    merge(MergeConfig(**config), Watch(step=steps))
    shutil.rmtree(sharded.output)
    assert killed_merge(config, len(steps.seen) - 10) == -signal.SIGKILL
    if change == "input":
        os.utime(sharded.a / "model.safetensors")
    elif change == "weight":
        config = sharded.config(MANY, weight=0.25)
    elif change == "torch_dtype":
        config = sharded.config(MANY, torch_dtype="float32")
    elif change == "shard size":
        config = sharded.config(FEW)
    else:
        with Path(importlib.import_module(module).__file__ or "").open("a") as source:
            source.write("# another source\n")

    report = merge(MergeConfig(**config))

    assert report.bytes_reused == 0
    assert any("unfinished merge of another plan" in str(note) for note in report.notes)
    resumed = directory_state(sharded.output)
    shutil.rmtree(sharded.output)
    merge(MergeConfig(**config))
    assert directory_state(sharded.output) == resumed


def test_a_damaged_block_is_computed_again(sharded: SimpleNamespace) -> None:
    """A9"""
    config = sharded.config(MANY)
    steps = Steps()
    merge(MergeConfig(**config), Watch(step=steps))
    uninterrupted = directory_state(sharded.output)
    rename = 1 + [name for name, _ in steps.seen].index("rename")
    shutil.rmtree(sharded.output)
    assert killed_merge(config, rename) == -signal.SIGKILL
    shards = sorted((staging_path(sharded.output) / "model").glob("*.safetensors"))
    content = bytearray(shards[0].read_bytes())
    content[-3] ^= 4
    shards[0].write_bytes(content)
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    shards[2].unlink()

    report = merge(MergeConfig(**config))

    assert report.bytes_reused == (sharded.output / shards[3].name).stat().st_size
    assert directory_state(sharded.output) == uninterrupted


def test_an_output_is_readable_at_every_moment_of_an_overwrite(sharded: SimpleNamespace) -> None:
    """A12"""
    states = []
    for shard in (FEW, MANY):
        merge(MergeConfig(**sharded.config(shard, overwrite=True)))
        states.append(directory_state(sharded.output))
    stop = sharded.folder / "stop"
    child = fork(lambda: read_until(stop, sharded.output, states))
    try:
        for shard in (FEW, MANY, FEW, MANY, FEW):
            merge(MergeConfig(**sharded.config(shard, overwrite=True)))
            assert directory_state(sharded.output) == states[shard == MANY]
            time.sleep(0.05)
    finally:
        stop.touch()
    assert ended(child) == 0


def read_until(stop: Path, output: Path, states: list[dict[str, bytes] | None]) -> int:
    """Opens and reads the output again and again. Wrong is: not there, or, unless it was exchanged meanwhile, no whole state."""
    seen = set()
    while not stop.exists():
        descriptor = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = directory_state(Path(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:
            found = None
        same = os.path.samestat(os.fstat(descriptor), os.stat(output))
        os.close(descriptor)
        if same and found not in states:
            return 1
        if same:
            seen.add(states.index(found))
    return 0 if seen == {0, 1} else 2
