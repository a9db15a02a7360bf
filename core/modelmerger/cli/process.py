"""The process of the command line: how it ends, with which exit status and message."""

import atexit
import contextlib
import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from modelmerger.cli.commands import cli
from modelmerger.values.errors import MergeError, OutputError, Problem
from modelmerger.values.model_reference import user_path
from modelmerger.values.text import LINE_LIMIT, shown


class Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception in the main thread."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    state: dict[str, Any] = {"debug": False, "target": None}
    with _terminable(), _logging():
        try:
            # click's own main would turn a signal and a broken pipe into something else
            given = sys.argv[1:] if arguments is None else list(arguments)
            with cli.make_context("modelmerger", given, obj=state) as context:
                cli.invoke(context)
            if sys.stdout is not None:
                sys.stdout.flush()
            return 0
        except click.exceptions.Exit as exit_:
            return exit_.exit_code
        except (click.ClickException, MergeError) as error:
            _say(error)
            status = error.exit_status if isinstance(error, MergeError) else 2
            _trace(state)
        except KeyboardInterrupt as error:
            click.echo(f"error: {str(error) or 'interrupted.' + _resumable(state['target'])}", err=True)
            status = 143 if isinstance(error, Terminated) else 130
        except BrokenPipeError:
            status = _without_output()
        except OSError as error:
            _say(OutputError(Problem(f"{error.strerror or error}.", str(error.filename or "standard output"))))
            status = _without_output()
            _trace(state)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            click.echo(
                f"error: a bug in modelmerger: {shown(text, LINE_LIMIT - 80)}. Run it with --debug and report it.",
                err=True,
            )
            status = 1
            _trace(state)
        return status


def run() -> None:
    """The console script.

    Importing torch makes half a million objects that live until the process ends. Garbage collection would spend a
    fifth of a second on them while they are made, and as much again when the interpreter ends; freeing them then takes
    another tenth. numpy's BLAS, which no merge uses, would start a thread for each core, and these wait by spinning.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()
    status = 1

    def leave() -> None:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # the stream may be closed
                stream.flush()
        os._exit(status)

    atexit.register(leave)  # registered first, so called last, after threads have ended and others have cleaned up
    sys.exit(status := main())


def _without_output() -> int:
    """Discards what is still to be printed, so that the interpreter does not fail again when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 4


def _trace(state: Mapping[str, Any]) -> None:
    if state["debug"]:
        traceback.print_exc()


def _say(error: click.ClickException | MergeError) -> None:
    lines = error.lines() if isinstance(error, MergeError) else [str(Problem(_usage(error)))]
    for line in lines:
        click.echo(line if line.startswith("… and") else f"error: {line}", err=True)


def _usage(error: click.ClickException) -> str:
    """Click's message as a sentence, and how to get help."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    sentence = error.format_message().rstrip(".")
    stop = "" if sentence.endswith("?") else "."
    return f"{sentence}{stop} See {context.command_path} --help" if context else sentence


def _resumable(target: Path | None) -> str:
    from modelmerger.output.staging_directory import is_published, staging_path

    output = Path(os.path.abspath(user_path(target))) if target is not None else None
    if output is None or not staging_path(output).exists():
        return " Nothing was written."
    if is_published(output):
        return f" The merged model is at {shown(output)}; run the same command again to clear up."
    return " The output is as it was; run the same command again to go on where this one stopped."


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends like Ctrl-C, with its own exit status."""

    def terminate(_: int, __: Any) -> None:
        raise Terminated

    before: Callable[..., Any] | int | None = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Lowercase(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {record.getMessage()}"


@contextlib.contextmanager
def _logging() -> Iterator[None]:
    """Shows messages of the `modelmerger` logger on stderr while a command runs."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lowercase())
    logger = logging.getLogger("modelmerger")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
