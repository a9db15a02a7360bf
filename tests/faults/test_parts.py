"""A merge in shares, each a process of its own that talks to nobody, and one run at the end that publishes."""

import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modelmerger.output.parts.part_staging
import modelmerger.output.resuming as resuming
import modelmerger.run_part
import pytest
import torch
from blocks import set_block
from conftest import command_line, directory_state, random_tensors
from modelmerger import (
    ConfigError,
    MergeConfig,
    MergeError,
    NumericError,
    OutputError,
    Watch,
    merge,
    merge_part,
    verify,
)
from modelmerger.engine import measuring
from modelmerger.engine.measuring import Measurer
from safetensors.torch import save_file

from tests.faults.stopping import assert_sentences, die, ended, fork, staging_path, wait_until


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors lie in many blocks."""
    set_block(monkeypatch, 1 << 10)
    monkeypatch.setattr(measuring, "BLOCKS_A_UNIT", 2)
    monkeypatch.setattr(modelmerger.output.parts.part_staging, "pause", lambda: None)


@pytest.fixture
def told(models: SimpleNamespace, small_blocks: None) -> dict[str, Any]:
    """A merge by slerp, which measures, in several shards."""
    return {
        "strategy": "slerp",
        "models": [{"path": str(models.a)}, {"path": str(models.b)}],
        "output_path": str(models.output),
        "options": {"max_shard_size": 6_000, "low_memory_mode": True},
    }


@pytest.fixture
def whole(told: dict[str, Any], models: SimpleNamespace) -> dict[str, bytes] | None:
    """What one merge makes, byte by byte."""
    merge(MergeConfig(**told))
    state = directory_state(models.output)
    shutil.rmtree(models.output)
    return state


@pytest.fixture
def file(told: dict[str, Any], models: SimpleNamespace) -> Path:
    path = models.folder / "config.json"
    path.write_text(json.dumps(told))
    return path


def read_blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The begins of blocks that are read to see whether they are as their journal says."""
    seen: list[int] = []
    differing = resuming.differing

    def watched(descriptor: int, begin: int, pieces: Any) -> Any:
        seen.append(begin)
        return differing(descriptor, begin, pieces)

    monkeypatch.setattr(resuming, "differing", watched)
    return seen


@pytest.mark.parametrize("count", [1, 3, 16])
def test_shares_and_a_last_run_make_the_bytes_of_one_merge(
    told: dict[str, Any],
    models: SimpleNamespace,
    whole: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    """A23"""
    reports = [merge_part(told, f"{number}/{count}") for number in reversed(range(count))]
    assert not models.output.exists()
    assert sum(report.bytes_written for report in reports) == reports[0].bytes_of_all
    assert {report.bytes_reused for report in reports} == {0}
    seen = read_blocks(monkeypatch)

    report = merge(told)

    assert report.bytes_reused == report.bytes_written
    assert seen == []  # what ended well is not read again
    assert directory_state(models.output) == whole
    assert not staging_path(models.output).exists()


@pytest.mark.parametrize("count", [3, 16])
def test_processes_at_the_same_time_make_them_too(
    told: dict[str, Any], models: SimpleNamespace, whole: dict[str, bytes], file: Path, count: int
) -> None:
    """A23: As an array of jobs runs them."""
    children = [fork(lambda n=number: command_line("merge", file, "--part", f"{n}/{count}")) for number in range(count)]
    assert [ended(child) for child in children] == [0] * count
    assert merge(told).bytes_reused > 0
    assert directory_state(models.output) == whole


@pytest.mark.parametrize("block", [1, 2])
def test_a_share_that_was_killed_is_run_again(
    told: dict[str, Any], models: SimpleNamespace, whole: dict[str, bytes], block: int
) -> None:
    """A23, A7"""
    lines = itertools.count(1)

    def at_the_block(step: str, path: Path) -> None:
        if step == "journal" and path.name == "parts" and next(lines) == block + 1:
            die()

    assert ended(fork(lambda: merge_part(told, "1/3", Watch(step=at_the_block)) and None)) == -signal.SIGKILL
    merge_part(told, "0/3")
    assert merge_part(told, "1/3").bytes_reused > 0
    assert merge_part(told, "1/3").bytes_reused == merge_part(told, "1/3").bytes_written
    merge(told)  # which makes the share that nobody has made
    assert directory_state(models.output) == whole


def test_what_is_left_of_a_killed_share_is_read_before_it_is_believed(
    told: dict[str, Any], models: SimpleNamespace, whole: dict[str, bytes]
) -> None:
    """A23, A9"""
    lines = itertools.count(1)

    def late(step: str, path: Path) -> None:
        if step == "fsync" and path.suffix == ".safetensors" and next(lines) == 1:
            die()

    assert ended(fork(lambda: merge_part(told, "0/2", Watch(step=late)) and None)) == -signal.SIGKILL
    flip(first_file(models.output), 700)
    report = merge(told)
    assert 0 < report.bytes_reused < report.bytes_written // 2
    assert directory_state(models.output) == whole


def first_file(output: Path) -> Path:
    return min((staging_path(output) / "model").glob("*.safetensors"))


def flip(file: Path, offset: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(offset)
        byte = opened.read(1)
        opened.seek(offset)
        opened.write(bytes([byte[0] ^ 1]))


def test_another_count_of_shares_goes_on_with_what_is_there(
    told: dict[str, Any], models: SimpleNamespace, whole: dict[str, bytes]
) -> None:
    """A23"""
    merge_part(told, "0/3")
    reports = [merge_part(told, f"{number}/7") for number in range(7)]
    assert reports[0].bytes_reused == reports[0].bytes_written
    assert reports[6].bytes_reused == 0
    merge(told)
    assert directory_state(models.output) == whole


def test_two_of_one_number_are_not_made_at_once(
    told: dict[str, Any], models: SimpleNamespace, whole: dict[str, bytes], file: Path
) -> None:
    """A23, A10: nor a share and a whole merge, in either order."""
    started, go_on, said = models.folder / "started", models.folder / "go on", models.folder / "said"

    def hold(step: str, _: Path) -> None:
        if step == "write" and not started.exists():
            started.touch()
            wait_until(go_on.exists)

    first = fork(lambda: merge_part(told, "1/3", Watch(step=hold)) and None)
    wait_until(started.exists)
    assert ended(fork(lambda: command_line("merge", file, "--part", "1/3"), said)) == 4
    assert f"is being written by part 1/3 at this moment (process {first} on " in said.read_text()
    assert_sentences(said.read_text())
    assert ended(fork(lambda: command_line("merge", file), said)) == 4
    assert "is being written by part 1/3 at this moment" in said.read_text()
    assert ended(fork(lambda: command_line("merge", file, "--part", "2/3"))) == 0
    go_on.touch()
    assert ended(first) == 0

    started.unlink()
    go_on.unlink()
    last = fork(lambda: merge(told, Watch(step=hold)) and None)
    wait_until(started.exists)
    with pytest.raises(OutputError, match="is being written by another merge at this moment"):
        merge_part(told, "1/3")
    go_on.touch()
    assert ended(last) == 0
    assert directory_state(models.output) == whole


@pytest.mark.usefixtures("interruptible")
def test_a_share_whose_time_is_up_goes_on_later(
    told: dict[str, Any], models: SimpleNamespace, whole: dict[str, bytes], file: Path
) -> None:
    """A23, A6: As a scheduler ends it."""
    said = models.folder / "said"

    def ending() -> int:
        from modelmerger.output.parts.part_staging import PartStaging

        record, lines = PartStaging.record, itertools.count(1)

        def recorded(*arguments: Any) -> None:
            record(*arguments)
            if next(lines) == 2:
                os.kill(os.getpid(), signal.SIGTERM)

        PartStaging.record = recorded  # type: ignore[method-assign]  # in this process alone
        return command_line("merge", file, "--part", "0/2")

    assert ended(fork(ending, said)) == 143
    assert "run the same command again to go on where this one stopped" in said.read_text()
    assert merge_part(told, "0/2").bytes_reused > 0
    merge(told)
    assert directory_state(models.output) == whole


def test_shares_measure_little_more_than_one_merge(told: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """n shares measure at most n - 1 tensors once more."""
    measured: list[int] = []
    measure = Measurer.measure

    def counted(self: Measurer, unit: Any, *arguments: Any) -> Any:
        if unit.first == 0:
            measured.append(unit.of)
        return measure(self, unit, *arguments)

    monkeypatch.setattr(Measurer, "measure", counted)
    for number in range(5):
        merge_part(told, f"{number}/5")
    of_shares = len(measured)
    merge(told)
    assert len(measured) == of_shares  # nothing is left
    assert len(set(measured)) < of_shares <= len(set(measured)) + 4


def test_reread_finds_what_was_damaged_after_a_share_had_ended(
    told: dict[str, Any], models: SimpleNamespace, whole: dict[str, bytes], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A9"""
    for number in range(2):
        merge_part(told, f"{number}/2")
    flip(first_file(models.output), 700)

    def interrupted(step: str, _: Path) -> None:
        if step == "write":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(told, Watch(step=interrupted), reread=True)
    seen = read_blocks(monkeypatch)

    report = merge(told)  # which remembers that what shares said is not to be believed

    assert len(seen) > 3
    assert report.bytes_reused < report.bytes_written
    assert directory_state(models.output) == whole


def test_a_staged_file_that_is_gone_is_made_again(
    told: dict[str, Any], models: SimpleNamespace, whole: dict[str, bytes]
) -> None:
    """A9: whatever the shares said of it."""
    merge_part(told, "0/2")
    first_file(models.output).unlink()
    merge_part(told, "1/2")
    merge(told)
    assert directory_state(models.output) == whole


def test_shares_of_a_changed_config_begin_anew_and_say_so(
    told: dict[str, Any], models: SimpleNamespace, whole: dict[str, bytes]
) -> None:
    """A8"""
    merge_part({**told, "strategy": "weighted"}, "0/2")
    report = merge_part(told, "1/2")
    assert ["an unfinished merge of another plan" in str(note) for note in report.notes if note.severity == "warning"]
    assert report.bytes_reused == 0
    merge(told)
    assert directory_state(models.output) == whole


@pytest.mark.parametrize("part", [None, "1/2"])
def test_what_shares_made_on_other_processors_is_not_thrown_away(
    told: dict[str, Any], models: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, part: str | None
) -> None:
    """A24"""
    merge_part(told, "0/2")
    before = directory_state(staging_path(models.output))
    monkeypatch.setattr("modelmerger.engine.arithmetic_digest.arithmetic_digest", lambda: "0" * 64)
    with pytest.raises(MergeError, match=f"floating-point sums come to other bits than on {os.uname().nodename}"):
        merge(told) if part is None else merge_part(told, part)
    assert directory_state(staging_path(models.output)) == before


def test_what_a_share_fails_of_is_said_as_a_merge_says_it(told: dict[str, Any], models: SimpleNamespace) -> None:
    """C1"""
    tensors = random_tensors(3)
    tensors["model.layers.1.mlp.weight"][0, 0] = torch.nan
    save_file(tensors, models.b / "model.safetensors")
    with pytest.raises(NumericError, match=r"layers.1.mlp.*'b' holds 1 NaN"):
        for number in range(3):
            merge_part({**told, "strategy": "weighted"}, f"{number}/3")


def test_a_published_output_is_left_alone_and_overwritten_when_asked(
    told: dict[str, Any], models: SimpleNamespace
) -> None:
    """A11, A12"""
    merge({**told, "strategy": "weighted"})
    old = directory_state(models.output)
    with pytest.raises(OutputError, match="exists already"):
        merge_part(told, "0/2")
    overwriting = {**told, "options": {**told["options"], "overwrite": True}}
    for number in range(2):
        merge_part(overwriting, f"{number}/2")
    assert directory_state(models.output) == old
    merge(overwriting)
    verify(models.output)
    assert directory_state(models.output) != old


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ("16/16", "there is no part 16/16: parts are counted from 0, so the last of 16 is 15/16."),
        ("3/0", "there is no part 3/0: a merge has one part at least, as in 0/1."),
        ("3", "a part is a number and how many there are, as in 3/16, and not '3'."),
        ("-1/4", "a part is a number and how many there are, as in 3/16, and not '-1/4'."),
        ("1/4 ", "a part is a number and how many there are, as in 3/16, and not '1/4 '."),
    ],
)
def test_a_part_that_is_none_is_said(
    told: dict[str, Any], file: Path, command: Callable[..., SimpleNamespace], part: str, sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        merge_part(told, part)
    assert str(refused.value) == sentence
    found = command("merge", file, "--part", part)
    assert (found.status, found.err) == (2, f"error: {sentence}\n")


def test_models_in_memory_have_no_shares(told: dict[str, Any], models: SimpleNamespace) -> None:
    told["models"] = [{"path": models.tensors["a"]}, {"path": models.tensors["b"]}]
    with pytest.raises(ConfigError, match=r"^part: models in memory are merged, which no other process can open"):
        merge_part(told, "0/2")


def test_the_command_says_what_was_made_and_what_comes_next(
    models: SimpleNamespace, file: Path, command: Callable[..., SimpleNamespace]
) -> None:
    found = command("merge", file, "--part", "0/2")
    assert found.out.startswith("made part 0/2 of a merge of 2 models (slerp): ")
    assert found.out.endswith(f"run the same without --part to publish {models.output}\n")
    data = json.loads(command("merge", file, "--part", "1/2", "--json").out)
    assert (data["part"], data["output"], data["bytes_reused"]) == ("1/2", str(models.output), 0)
    found = command("merge", file, "--part", "1/2", "--reread")
    assert (found.status, found.err[:8]) == (2, "error: -")
