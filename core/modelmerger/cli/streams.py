"""Standard streams that can be written to, whatever the process was started with."""

import contextlib
import io
import os
import sys
from typing import TextIO

import click

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan", "info": "cyan"}


def make_usable() -> None:
    """Gives streams that are closed a place that takes everything, so that no file of a merge gets their number.

    What an encoding lacks is printed as an escape.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (open as long as the process is)
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(line: str) -> None:
    """A line on stderr, if that takes one."""
    with contextlib.suppress(OSError, ValueError):
        click.echo(coloured(line, sys.stderr), err=True)


def coloured(line: str, stream: TextIO | None) -> str:
    """The line with its first word in the colour of what it says, where a terminal shows colours and NO_COLOR is unset.

    See https://no-color.org.
    """
    word, colon, rest = line.partition(":")
    try:
        plain = stream is None or not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    except ValueError:  # it is closed
        plain = True
    if plain or not colon or word not in _COLOURS:
        return line
    return click.style(word + colon, fg=_COLOURS[word], bold=True) + rest


def discard_output() -> None:
    """Discards what is still to be printed, so that the interpreter does not fail again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
