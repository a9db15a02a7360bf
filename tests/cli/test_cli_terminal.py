"""Progress on a terminal and silence in a pipe; what the `modelmerger` logger says, and to whom."""

import io
import logging
import os
import pty
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import command_line
from modelmerger.progress import show_progress, show_tasks

Command = Callable[..., SimpleNamespace]


def on_a_terminal(*arguments: object) -> tuple[int, str]:
    """Status and screen of a command in a fork of this process that has a terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads
        child, screen = pty.fork()
    if child == 0:
        try:
            os.environ |= {"TERM": "xterm", "COLUMNS": "100"}
            sys.stdout, sys.stderr = (os.fdopen(os.dup(fd), "w", buffering=1) for fd in (1, 2))
            status = command_line(*arguments)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        finally:
            os._exit(99)
    shown = bytearray()
    while True:
        try:
            part = os.read(screen, 65536)
        except OSError:  # the terminal of a process that ended
            break
        if not part:
            break
        shown += part
    os.close(screen)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, shown.decode()


def test_a_terminal_sees_bytes_rate_and_all_of_the_work(path: Path) -> None:
    status, screen = on_a_terminal("merge", path, "--set", "options.max_shard_size=1KB")
    assert status == 0, screen
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)
    assert "merging" in plain
    done, total = re.findall(r"([\d.]+)/([\d.]+) KiB", plain)[-1]
    assert float(done) == float(total) > 0
    assert re.search(r"[\d.]+ [kKMG]?i?B/s", plain)
    assert re.search(r"\d:\d\d:\d\d", plain)
    assert plain.rstrip().splitlines()[-1].startswith("merged 2 models (weighted)")


@pytest.mark.parametrize("variable", ["", "NO_COLOR"])
def test_what_went_wrong_has_a_colour_on_a_terminal(path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    status, screen = on_a_terminal("check", path, "--set", "strategy=slrp")
    assert status == 2
    start = "error: " if variable else "\x1b[31m\x1b[1merror:\x1b[0m "
    assert screen.startswith(f"{start}no strategy is named")


def test_a_terminal_sees_at_once_that_something_happens(path: Path) -> None:
    _, screen = on_a_terminal("merge", path, "--set", "strategy=slrp")
    assert screen.startswith("starting …\r")
    assert "\r\x1b[K" in screen.partition("error")[0]


def test_a_pipe_sees_no_progress(command: Command, path: Path) -> None:
    result = command("merge", path)
    assert all(line.startswith("note: ") for line in result.err.splitlines())
    assert "%" not in result.err + result.out


@pytest.mark.parametrize(
    ("options", "levels"),
    [
        ({}, {"note"}),
        ({"verbose": "true"}, {"info"}),
        ({"log_level": "INFO"}, {"info"}),
        ({"log_level": "DEBUG", "verbose": "false"}, {"info"}),
        ({"log_level": "ERROR", "verbose": "true"}, set()),
        ({"log_level": "WARNING", "verbose": "true"}, set()),
    ],
)
def test_verbose_and_log_level_decide_what_is_said(
    command: Command, path: Path, options: dict[str, str], levels: set[str]
) -> None:
    result = command(
        "merge", path, *(part for key, value in options.items() for part in ("--set", f"options.{key}={value}"))
    )
    assert result.status == 0
    assert {line.split(":")[0] for line in result.err.splitlines()} == levels
    if "info" in levels:
        assert "info: merging 7 tensors (weighted)" in result.err.splitlines()
        assert any(line.startswith("info: published ") for line in result.err.splitlines())


def test_warnings_are_said_without_being_asked_for(command: Command, path: Path, models: SimpleNamespace) -> None:
    arguments = ("--set", "strategy=slerp", "--set", "options.interpolation_factor=0.5")
    result = command("merge", path, *arguments)
    assert "warning: options: interpolation_factor 0.5 wins over the weights 0.6 and 0.4.\n" in result.err
    silent = command("merge", path, *arguments, "--overwrite", "--set", "options.log_level=ERROR")
    assert (silent.status, silent.err) == (0, "")


def test_only_the_loggers_of_this_package_are_touched(command: Command, path: Path) -> None:
    root, other, own = logging.getLogger(), logging.getLogger("transformers"), logging.getLogger("modelmerger")
    before = [(logger.level, list(logger.handlers), logger.disabled) for logger in (root, other)]
    handlers = list(own.handlers)
    assert command("merge", path, "--set", "options.log_level=DEBUG").status == 0
    assert [(logger.level, list(logger.handlers), logger.disabled) for logger in (root, other)] == before
    assert own.level == logging.DEBUG
    assert own.handlers == handlers
    assert command("merge", path, "--overwrite").status == 0
    assert own.level == logging.WARNING


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_merge_within_a_validation_shows_no_bar_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where an adapter is folded to be measured: what it wrote would stay above the bar that is there."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with show_tasks("validating") as doing:
        doing("gulf", 0, 1)
        with show_progress("merging") as merging:
            merging(1, 2)
    assert "validating gulf" in screen.getvalue()
    assert "starting" not in screen.getvalue()
    assert "merging" not in screen.getvalue()
