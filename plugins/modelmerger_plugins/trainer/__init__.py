"""Finds the newest checkpoint in the output directory of a trainer, or several of them, or what a pattern matches."""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from attrs import Attribute, field, frozen, validators
from modelmerger import (
    ConfigError,
    Location,
    ModelReference,
    Problem,
    Settings,
    amount,
    hookimpl,
    must_be_between,
    resolve_inside,
    shown,
    user_path,
)

from modelmerger_plugins.trainer.directories import STATE, best_of, checkpoints_of
from modelmerger_plugins.trainer.patterns import is_pattern, matching


def _fits(chosen: Any, _: "Attribute[Any]", decay: float | str | None) -> None:
    if decay is None:
        return
    from modelmerger_plugins.trainer.schedules import DECAYS

    named = isinstance(decay, str)
    if chosen.schedule not in ("ema", "wsm"):
        raise ValueError(f"goes with the schedules ema and wsm, and this one is {chosen.schedule}. Leave it out")
    if named != (chosen.schedule == "wsm"):
        wanted = f"one of {', '.join(DECAYS)}" if chosen.schedule == "wsm" else "a number between 0 and 1"
        raise ValueError(f"must be {wanted} for the schedule {chosen.schedule}, got {decay!r}")
    if not isinstance(decay, str) and not 0 < decay < 1:
        raise ValueError(f"must be between 0 and 1, got {decay!r}")


@frozen(kw_only=True)
class Chosen:
    """Which checkpoints of a training are merged, and what each counts."""

    last: int | None = field(default=None, validator=validators.optional(must_be_between(1, 1000)))
    """How many of them, from the newest on; without it, all."""
    schedule: Literal["uniform", "linear", "ema", "wsm"] = "uniform"
    """What each counts, from the oldest to the newest."""
    decay: float | Literal["linear", "cosine", "inverse_sqrt"] | None = field(default=None, validator=_fits)
    """For ema, how much a checkpoint counts of what the next one counts (0.9 unless given); for wsm, how the learning
    rate would have decayed (inverse_sqrt unless given)."""


@frozen(kw_only=True)
class ModelOptions:
    """Keys of models."""

    checkpoints: Chosen | None = None
    """The checkpoints that the model is averaged of: those of a trainer's output directory, or what the pattern in its
    path matches."""


def members_of(path: str) -> list[str]:
    """What a pattern matches, or the checkpoints in a directory, the oldest first."""
    held = checkpoints_of(user_path(path))
    return matching(path) or [os.path.join(path, held.path(name).name) for name in held.names]


def _has_members(path: str) -> bool:
    """Whether there are any, or those of a pattern are missed when the model is opened."""
    return is_pattern(path) or bool(checkpoints_of(user_path(path)).names)


@hookimpl(trylast=True)
def expand_model(reference: ModelReference, model_options: ModelOptions) -> Mapping[str, float] | None:
    """The paths that a pattern matches, or the checkpoints of a directory where the entry wants them."""
    wanted = model_options.checkpoints is not None
    found = members_of(reference.path) if wanted else matching(reference.path)
    if not found:
        return None
    from modelmerger_plugins.trainer.schedules import shares

    chosen = model_options.checkpoints or Chosen()
    if chosen.last is not None and chosen.last > len(found):
        message = f"wants the last {chosen.last} of {amount(len(found), 'checkpoint')}. Give {len(found)} at most"
        raise ConfigError(Problem(message, reference.where.removesuffix("path") + "checkpoints.last"))
    members = found[-chosen.last :] if chosen.last is not None else found
    return dict(zip(members, shares(chosen.schedule, len(members), chosen.decay), strict=True))


@hookimpl
def check_config(settings: Settings) -> Iterable[Problem]:
    """An error for checkpoints that are wanted where none are."""
    for i, (model, told) in enumerate(zip(settings.models, settings.plugin_model_options, strict=False)):
        if told["trainer"].checkpoints is not None and not _has_members(model.path):
            message = (
                f"there are no checkpoints at {shown(model.path)}. Give a trainer's output directory, or a pattern"
            )
            yield Problem(message, f"models[{i}].checkpoints")


@hookimpl(trylast=True)
def locate_model(reference: ModelReference) -> Location | None:
    """The checkpoint-N of the highest N in a directory that has no weights of its own."""
    held = checkpoints_of(reference.local)
    if not held.names or held.has_weights:
        return None
    directory, latest = held.directory, held.names[-1]
    message = f"has no weights of its own; of its {amount(len(held.names), 'checkpoint')} the last, {latest}, is taken."
    best = best_of(directory / latest)
    if best != latest and best in held.names:
        message += f" Its {STATE} says that {best} is the best: give {directory / best} to take that one."
    note = Problem(message, str(directory), severity="note")
    return Location(resolve_inside(directory / latest, directory), notes=(note,))
