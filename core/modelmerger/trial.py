"""A merge is tried out in a process of its own, which may fail or hang without harm."""

import contextlib
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from modelmerger.config.resolve import resolve
from modelmerger.engine.memory.resident import MAPPED, map_from
from modelmerger.engine.merged_checkpoint import MergedCheckpoint
from modelmerger.hooks.of_process import providers_of_file
from modelmerger.hooks.registry import Registry
from modelmerger.planning.outlook.trial import Trial
from modelmerger.planning.prepared import Prepared, prepare
from modelmerger.values.errors import MergeError, Problem
from modelmerger.worker import where_located

PATIENCE = 30.0
"""Seconds that a trial may take, those of opening and planning once more among them."""
_PROGRAM = "from modelmerger.trial import answer; answer()"


def try_out(ready: Prepared, patience: float = PATIENCE) -> Trial | Problem:
    """What a merge takes, by a few of its slices; or a note that says why that is not known.

    patience: in seconds.
    """
    if ready.settings.has_live:
        return _untried("models in memory are merged, which no other process can open")
    given = [provider.version for provider in ready.hooks.all_providers if provider.digest]
    if not all(map(os.path.isfile, given)):
        return _untried("a plugin takes part that is in this process alone")
    order = {
        "config": ready.settings.given,
        "files": sorted(set(given)),
        "located": [(path, str(place.directory), place.revision) for path, place in ready.located.items()],
    }
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    try:
        done = subprocess.run(  # noqa: S603 (this very program)
            [sys.executable, "-P", "-c", _PROGRAM],
            input=json.dumps(order),
            env=os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _untried(f"it took more than {patience:.0f} s")
    except OSError as error:
        return _untried(f"no process could be started: {error.strerror}")
    except TypeError:
        return _untried("the config holds what is no plain data")
    return _read(done.stdout, done.returncode)


def answer() -> None:
    """The process of a trial: reads the order from stdin, and writes what was found to stdout, as nobody else does.

    Its memory is that of a merge on the command line: what is freed goes back, or not, as it does there.
    """
    gc.disable()
    map_from(MAPPED)
    out = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        told: dict[str, Any] = {"trial": _tried(json.load(sys.stdin)).as_dict()}
    except MergeError as error:
        told = {"failed": error.lines()[0]}
    except Exception as error:
        told = {"failed": f"{type(error).__name__}: {error}"}
    with os.fdopen(out, "w") as stream:
        json.dump(told, stream)
        stream.flush()
    os._exit(0)  # torch takes its time to leave


def _tried(order: dict[str, Any]) -> Trial:
    from modelmerger.engine.arithmetic_digest import with_digest
    from modelmerger.engine.trial.trying import try_merge

    providers = [provider for file in order["files"] for provider in providers_of_file(Path(file))]
    config = order["config"]
    config["options"] = {**(config.get("options") or {}), "io": "buffered"}  # what is on its way is planned, not tried
    settings, hooks = resolve(config, Registry.installed().with_given(providers))
    with prepare(settings, hooks, locate=where_located(order["located"]), merged=MergedCheckpoint) as ready:
        return try_merge(with_digest(ready))


def _read(text: str, status: int) -> Trial | Problem:
    """What the process of a trial said. status: its exit status."""
    with contextlib.suppress(ValueError, TypeError):
        told = json.loads(text)
        return Trial(**told["trial"]) if "trial" in told else _untried(str(told["failed"]).rstrip("."))
    return _untried(f"its process ended with status {status}")


def _untried(reason: str) -> Problem:
    message = f"the strategy was not tried out, so the memory is an estimate from the shapes of tensors: {reason}."
    return Problem(message, severity="note")
