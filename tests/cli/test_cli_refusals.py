"""Whatever `merge` refuses before it reads a tensor, `check` and `plan` refuse in the same words."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import directory_state, write_model
from modelmerger.output import system

from tests.core.plugging import install


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


Command = Callable[..., SimpleNamespace]
UNTRIED = (("check",), ("plan", "--no-trial"), ("merge",))
ELSEWHERE = """
from modelmerger import hookimpl

@hookimpl
def run_slices(work):
    work.order()
"""


def assert_all_refuse(
    command: Command, status: int, words: str, *arguments: object, said: tuple[str, ...] = ("merge", "check", "plan")
) -> None:
    """The same status and lines from each command. words: in the only line."""
    found = {name: command(name, *arguments) for name in said}
    assert {name: result.status for name, result in found.items()} == dict.fromkeys(said, status)
    (line,) = found[said[0]].err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert {name: result.err for name, result in found.items()} == dict.fromkeys(said, f"{line}\n")


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("nowhere/there/merged", "/nowhere does not exist. Make it first."),
        ("a", "is, contains or lies in the input 'a'"),
        ("a/merged", "is, contains or lies in the input 'a'"),
        ("merge.yaml", "exists and is a file, not a directory"),
        ("merge.yaml/merged", "/merge.yaml does not exist. Make it first."),
        ("link", "exists and is a symbolic link, not a directory"),
        ("base", "exists already. Give another output path, or set overwrite: true"),
        ("x" * 256, "File name too long"),
        ("x" * 250, "File name too long"),
        ("taken", "exists and is not a staging directory of a merge"),
    ],
)
@pytest.mark.parametrize("by", ["config", "command line"])
def test_an_output_that_may_not_be_written(
    command: Command, path: Path, models: SimpleNamespace, output: str, words: str, by: str
) -> None:
    (models.folder / "link").symlink_to(models.folder / "nowhere")
    (models.folder / ".taken.modelmerger").mkdir()
    (models.folder / ".taken.modelmerger" / "precious").touch()
    before = {str(p): directory_state(p) for p in models.folder.iterdir() if not p.is_symlink()}
    there = models.folder / output
    told = ("--output", there) if by == "command line" else ("--set", f"output_path={there}")
    assert_all_refuse(command, 4, words, path, *told)
    assert {str(p): directory_state(p) for p in models.folder.iterdir() if not p.is_symlink()} == before


def test_a_merge_that_is_done_but_for_clearing_up_is_refused_by_none(
    command: Command, path: Path, models: SimpleNamespace
) -> None:
    """A1: the last step of a removal leaves an empty staging directory beside the output."""
    output = models.folder / "merged"
    told = path, "--output", output
    assert command("merge", *told).status == 0
    published = directory_state(output)
    left = models.folder / ".merged.modelmerger"
    left.mkdir()
    assert_all_refuse(command, 4, "no merge wrote it", path, "--output", models.base, "--overwrite")
    for name, *how in UNTRIED:
        result = command(name, *told, *how)
        assert (name, result.status) == (name, 0), result.err
        assert left.exists() == (name != "merge")
    assert directory_state(output) == published
    assert_all_refuse(command, 4, "exists already", *told)


def test_what_cannot_be_exchanged_is_refused_before_the_merge(
    command: Command, path: Path, models: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A22"""
    told = path, "--output", models.folder / "merged"
    assert command("merge", *told).status == 0
    before = directory_state(models.folder / "merged")
    there = set(os.listdir(models.folder))
    with monkeypatch.context() as lacking:
        lacking.setattr(system, "_renameat2", failing(errno.EINVAL))
        assert_all_refuse(command, 4, "cannot be overwritten in one step on this file system", *told, "--overwrite")
    with monkeypatch.context() as mounted:
        mounted.setattr(Path, "is_mount", lambda _: True)
        assert_all_refuse(command, 4, "is where a disk is mounted", *told, "--overwrite")
    assert directory_state(models.folder / "merged") == before
    assert set(os.listdir(models.folder)) == there


def test_what_no_merge_wrote_is_not_overwritten(command: Command, path: Path, models: SimpleNamespace) -> None:
    told = path, "--output", models.base
    assert_all_refuse(command, 4, "no merge wrote it", *told, "--overwrite")
    assert_all_refuse(command, 4, "no merge wrote it", *told, "--set", "options.overwrite=true")


def test_an_earlier_output_is_refused_unless_it_may_be_overwritten(
    command: Command, path: Path, models: SimpleNamespace
) -> None:
    assert command("merge", path).status == 0
    assert_all_refuse(command, 4, "exists already", path)
    for arguments in UNTRIED:
        assert command(*arguments, path, "--overwrite").status == 0
    assert command("check", path, "--set", "output_path=").status == 0  # without an output nothing is said of one


def test_a_disk_that_is_too_small(command: Command, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statvfs = os.statvfs

    def full(where: Any) -> Any:
        found = statvfs(where)
        return SimpleNamespace(f_bavail=1, f_frsize=found.f_frsize)

    monkeypatch.setattr(os, "statvfs", full)
    assert_all_refuse(command, 4, "are needed and 4.0 KiB are free on the disk", path)


@pytest.mark.parametrize(
    ("setting", "status", "words"),
    [
        ("options.device_map=cuda:7", 2, "'cuda:7' is a GPU, and torch sees"),
        ("options.device_map={a: cpu, b: 31}", 2, "31 is a GPU, and torch sees"),
        ("options.torch_dtype=float17", 2, "options.torch_dtype: "),
        ("options.max_shard_size=many", 2, "options.max_shard_size: "),
        ("options.executor=nobody", 2, "'nobody'"),
        ("validation.dataset=./nowhere.txt", 3, "nowhere.txt: "),
        ("validation.thresholds.beauty=3", 2, "beauty"),
        ("models[0].weight={'*nothing*': 1, default: 1}", 2, "'*nothing*'"),
        ("base_model=./nowhere", 3, "./nowhere: does not exist"),
    ],
)
def test_settings_that_no_merge_takes(command: Command, path: Path, setting: str, status: int, words: str) -> None:
    assert_all_refuse(command, status, words, path, "--set", setting)


def test_an_executor_elsewhere_that_cannot_have_the_strategy(
    command: Command, path: Path, distribution: Callable[..., Path], tmp_path: Path
) -> None:
    install(distribution, [("executor", "far", ELSEWHERE)])
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from modelmerger import Traits, hookimpl\n\ntraits = Traits(models=(1, None))\n\n"
        "@hookimpl\ndef find_coefficients(weights):\n    return list(weights)\n"
    )
    told = "--plugin", mine, "--set", "strategy=mine", "--set", "options.executor=far"
    assert_all_refuse(command, 2, "is not installed, so no worker elsewhere can import it", path, *told)


def test_everything_is_said_at_once(command: Command, path: Path, models: SimpleNamespace) -> None:
    told = path, "--output", models.base, "--set", "options.device_map=cuda:7", "--set", "validation.dataset=./nowhere"
    for name in ("check", "plan"):
        result = command(name, *told)
        assert (result.status, len(result.err.splitlines())) == (3, 3)
        assert all(
            words in result.err
            for words in ("nowhere: cannot be opened", "'cuda:7' is a GPU", f"{models.base}: exists already")
        )


def test_a_plan_that_is_refused_is_shown_all_the_same(command: Command, path: Path, models: SimpleNamespace) -> None:
    result = command("plan", path, "--output", models.base)
    assert result.status == 4
    assert result.out.startswith("weighted of 2 models")


def test_models_that_do_not_fit(command: Command, path: Path, models: SimpleNamespace) -> None:
    write_model(models.b, models.tensors["b"] | {"model.norm.weight": torch.zeros(17)})
    assert_all_refuse(command, 3, "model.norm.weight", path)
