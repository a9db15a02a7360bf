"""Standard streams that can be written to, whatever the process was started with."""

import contextlib
import io
import os
import sys

import click


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
        click.echo(line, err=True)


def discard_output() -> None:
    """Discards what is still to be printed, so that the interpreter does not fail again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
