"""The process of the command line: how it ends, with which exit status and message."""

import atexit
import contextlib
import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from modelmerger.cli.commands import cli
from modelmerger.cli.interrupts import Interrupts, Terminated, interrupts
from modelmerger.cli.streams import discard_output, make_usable, say
from modelmerger.values.errors import MergeError, OutputError, Problem
from modelmerger.values.model_reference import user_path
from modelmerger.values.text import LINE_LIMIT, said_by, shown

LONGEST_RECORD = 2_000
"""Characters of what is logged."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    with interrupts() as signals:
        return _run(arguments, signals)


def _run(arguments: list[str] | None, signals: Interrupts) -> int:
    state: dict[str, Any] = {"debug": False, "target": None}
    with _logging():
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
            say(f"error: {str(error) or 'interrupted.' + _resumable(state['target'])}")
            signals.said = True
            status = 143 if signals.terminated or isinstance(error, Terminated) else 130
        except BrokenPipeError:
            discard_output()
            status = 4
        except OSError as error:
            _say(OutputError(Problem(f"{error.strerror or error}.", str(error.filename or "standard output"))))
            discard_output()
            status = 4
            _trace(state)
        except MemoryError:
            say("error: the machine's memory does not suffice. Free some, or set low_memory_mode: true.")
            status = 1
            _trace(state)
        except Exception as error:
            if sys.stdout is not None and sys.stdout.closed:  # by a plugin: what was done is done, and not told
                _say(OutputError(Problem("was closed, so what was to be printed is lost.", "standard output")))
                return 4
            text = f"{type(error).__name__}: {said_by(error)}"
            say(f"error: a bug in modelmerger: {shown(text, LINE_LIMIT - 80)}. Run it with --debug and report it.")
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
    make_usable()
    logging.raiseExceptions = False  # a stream that takes nothing is no reason for a traceback
    status = 1

    def leave() -> None:
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # the stream may be closed
                stream.flush()
        os._exit(status)

    atexit.register(leave)  # registered first, so called last, after threads have ended and others have cleaned up
    signals = Interrupts()
    signals.install()
    try:
        status = _run(None, signals)
    except KeyboardInterrupt as error:  # it came while another end was being told
        status = 143 if signals.terminated or isinstance(error, Terminated) else 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(status)


def _trace(state: Mapping[str, Any]) -> None:
    if state["debug"]:
        traceback.print_exc()


def _say(error: click.ClickException | MergeError) -> None:
    lines = error.lines() if isinstance(error, MergeError) else [str(Problem(_usage(error)))]
    for line in lines:
        say(line if line.startswith("… and") else f"error: {line}")


def _usage(error: click.ClickException) -> str:
    """Click's message as a sentence, and how to get help."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    sentence = error.format_message().rstrip(".")
    stop = "" if sentence.endswith("?") else "."
    return f"{sentence}{stop} See {context.command_path} --help" if context else sentence


def _resumable(target: Path | None) -> str:
    from modelmerger.output.parent_folder import staging_path
    from modelmerger.output.staging_directory import is_published

    output = Path(os.path.abspath(user_path(target))) if target is not None else None
    if output is None or not staging_path(output).exists():
        return " Nothing was written."
    if is_published(output):
        return f" The merged model is at {shown(output)}; run the same command again to clear up."
    return " The output is as it was; run the same command again to go on where this one stopped."


class _Lowercase(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {shown(record.getMessage(), LONGEST_RECORD)}"


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
