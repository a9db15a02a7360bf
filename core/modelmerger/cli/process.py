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
from modelmerger.cli.completing import VARIABLE
from modelmerger.cli.interrupts import Interrupts, Terminated, interrupts
from modelmerger.cli.printed import failure, to_json
from modelmerger.cli.streams import coloured, discard_output, make_usable, say
from modelmerger.values.errors import ConfigError, MergeError, OutputError, Problem
from modelmerger.values.model_reference import user_path
from modelmerger.values.text import LINE_LIMIT, said_by, shown

LONGEST_RECORD = 2_000
"""Characters of what is logged."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line. Returns the exit status."""
    with interrupts() as signals:
        return _run(arguments, signals)


def _run(arguments: list[str] | None, signals: Interrupts) -> int:
    state: dict[str, Any] = {"debug": False, "target": None, "printed": False}
    # click's own main would turn a signal and a broken pipe into something else
    given = sys.argv[1:] if arguments is None else list(arguments)
    if asked := os.environ.get(VARIABLE):
        from modelmerger.cli.completion import answer

        return answer(cli, asked, state)
    as_json = "--json" in given  # it may be what cannot be parsed that fails
    with _logging():
        try:
            with cli.make_context("modelmerger", given, obj=state) as context:
                if not given:
                    click.echo(context.get_help(), err=True)
                    return 2
                cli.invoke(context)
            if sys.stdout is not None:
                sys.stdout.flush()
            return 0
        except click.exceptions.Exit as exit_:
            return exit_.exit_code
        except (click.ClickException, MergeError) as error:
            status = error.exit_status if isinstance(error, MergeError) else 2
            failed = error if isinstance(error, MergeError) else ConfigError(_usage(error))
            _say(failed)
            _print_failure(failed, status, as_json, state)
            _trace(state)
        except KeyboardInterrupt as error:
            said = str(error) or "interrupted." + _resumable(state["target"])
            say(f"error: {said}")
            signals.said = True
            status = 143 if signals.terminated or isinstance(error, Terminated) else 130
            _print_failure(KeyboardInterrupt(said), status, as_json, state)
        except BrokenPipeError:
            discard_output()
            status = 4
        except OSError as error:
            failed = OutputError(Problem(f"{error.strerror or error}.", str(error.filename or "standard output")))
            status = 4
            _say(failed)
            _print_failure(failed, status, as_json, state)
            discard_output()
            _trace(state)
        except MemoryError:
            failed = MergeError("the machine's memory does not suffice. Free some, or set low_memory_mode: true.")
            status = 1
            _say(failed)
            _print_failure(failed, status, as_json, state)
            _trace(state)
        except Exception as error:
            if sys.stdout is not None and sys.stdout.closed:  # by a plugin: what was done is done, and not told
                _say(OutputError(Problem("was closed, so what was to be printed is lost.", "standard output")))
                return 4
            text = f"{type(error).__name__}: {said_by(error)}"
            failed = MergeError(
                f"a bug in modelmerger: {shown(text, LINE_LIMIT - 80)}. Run it with --debug and report it."
            )
            status = 1
            _say(failed)
            _print_failure(failed, status, as_json, state)
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


def _say(error: MergeError) -> None:
    for line in error.lines():
        say(line if line.startswith("… and") else f"error: {line}")


def _print_failure(error: BaseException, status: int, asked: bool, state: Mapping[str, Any]) -> None:
    """An object on standard output, so that whoever parses it always gets one. asked: whether JSON was asked for."""
    if asked and not state["printed"]:
        with contextlib.suppress(OSError, ValueError):
            click.echo(to_json(failure(error, status)))


def _usage(error: click.ClickException) -> str:
    """Click's message as a sentence, and how to get help."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    sentence = " ".join(error.format_message().split()).rstrip(".")
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
        return coloured(f"{record.levelname.lower()}: {shown(record.getMessage(), LONGEST_RECORD)}", sys.stderr)


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
