"""A process that measures vectors for a search, one after the other, until nobody asks any more.

What is asked and answered is a line of JSON each, on standard input and output.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

_DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl."""


def main(parent: int) -> None:
    """Measures what is asked. parent: the number of the process that asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a terminal sends to both
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        return
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as told, os.fdopen(os.dup(0), encoding="utf-8") as asked:
        os.dup2(2, 1)  # whatever else prints
        try:
            _serve(asked, told)
        except Exception as error:
            from modelmerger import MergeError

            ours = isinstance(error, MergeError)
            problems = error.lines() if isinstance(error, MergeError) else [f"{type(error).__name__}: {error}"]
            _tell(told, {"failed": problems, "kind": type(error).__name__ if ours else "MergeError"})
    os._exit(0)  # what was imported need not be taken apart


def _serve(asked: IO[str], told: IO[str]) -> None:
    import torch
    from modelmerger import recalling

    from modelmerger_plugins.tune.live.benches import Losses
    from modelmerger_plugins.tune.live.measures import measure_of

    order: Mapping[str, Any] = json.loads(asked.readline())
    torch.set_num_threads(order["threads"])
    measure = measure_of(order["config"], order["fewest"], order["texts"], Path(order["folder"]))

    def drop(part: int, losses: Losses) -> bool:
        _tell(told, {"part": part, "losses": losses})
        return bool(json.loads(asked.readline())["drop"])

    with recalling(among=order["jobs"]):
        while line := asked.readline():
            found = measure(json.loads(line)["vector"], drop)
            parts = {"parts": list(found.parts), "dropped": found.dropped}
            _tell(told, {"measured": {"losses": found.losses, "seconds": found.seconds, **parts}})


def _tell(told: IO[str], value: Mapping[str, Any]) -> None:
    told.write(json.dumps(value) + "\n")
    told.flush()
