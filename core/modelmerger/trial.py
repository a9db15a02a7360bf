"""A merge is tried out in a process of its own, which may fail or hang without harm."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelmerger.config.resolve import resolve
from modelmerger.engine.memory.resident import MAPPED, map_from
from modelmerger.engine.merged_checkpoint import MergedCheckpoint
from modelmerger.hooks.inquiries.child import Call, Limits, NoAnswerError, called
from modelmerger.hooks.of_process import providers_of_file
from modelmerger.hooks.registry import Registry
from modelmerger.planning.outlook.trial import Trial
from modelmerger.planning.prepared import Prepared, prepare
from modelmerger.values.errors import MergeError, Problem
from modelmerger.worker import where_located

PATIENCE = 30.0
"""Seconds that a trial may take, those of opening and planning once more among them."""


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
    call = Call(f"{__name__}:tried", order, Limits(seconds=patience), {"OPENBLAS_NUM_THREADS": "1"})
    try:
        found = called(call)
    except NoAnswerError as error:
        return _untried(f"it took more than {patience:.0f} s" if error.limit == "time" else str(error))
    except TypeError:
        return _untried("the config holds what is no plain data")
    return Trial(**found["trial"]) if "trial" in found else _untried(found["failed"].rstrip("."))


def tried(order: Mapping[str, Any]) -> dict[str, Any]:
    """What the process of a trial finds, as plain data.

    Its memory is that of a merge on the command line: what is freed goes back, or not, as it does there.
    """
    map_from(MAPPED)
    try:
        return {"trial": _tried(order).as_dict()}
    except MergeError as error:
        return {"failed": error.lines()[0]}


def _tried(order: Mapping[str, Any]) -> Trial:
    from modelmerger.engine.arithmetic_digest import with_digest
    from modelmerger.engine.trial.trying import try_merge

    providers = [provider for file in order["files"] for provider in providers_of_file(Path(file))]
    config = order["config"]
    config["options"] = {**(config.get("options") or {}), "io": "buffered"}  # what is on its way is planned, not tried
    settings, hooks = resolve(config, Registry.installed().with_given(providers))
    with prepare(settings, hooks, locate=where_located(order["located"]), merged=MergedCheckpoint) as ready:
        return try_merge(with_digest(ready))


def _untried(reason: str) -> Problem:
    message = f"the strategy was not tried out, so the memory is an estimate from the shapes of tensors: {reason}."
    return Problem(message, severity="note")
