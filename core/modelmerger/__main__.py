"""`python -m modelmerger`, and the console script: what happens before anything is imported."""

import os
import signal


def run() -> None:
    """Runs the command line and ends the process, with one line and 130 or 143 for a signal, from here on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    from modelmerger.cli.process import run as run_process

    run_process()


def _leave(number: int, _: object) -> None:
    """Nothing was written yet, and an exception would go into an import, which leaves half a module behind."""
    try:
        os.write(2, b"error: interrupted. Nothing was written.\n")
    finally:
        os._exit(128 + number)


if __name__ == "__main__":
    run()
