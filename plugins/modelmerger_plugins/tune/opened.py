"""A config that is to be tuned, with its models open: the start of it, its plan, and where its numbers are."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from attrs import evolve, field, frozen
from modelmerger import (
    Checkpoint,
    ConfigError,
    MergeConfig,
    MergePlan,
    ModelMerger,
    Problem,
    Settings,
    parse_document,
    user_path,
)

from modelmerger_plugins.tune.coordinates import Space, granularity, shares_of, top_of
from modelmerger_plugins.tune.marks import KEY, Mark, marks_of, with_values, without_zero
from modelmerger_plugins.tune.section import Per, Tune

SECTION = "tuned"
"""The section that says in a config where its numbers come from."""


@frozen(eq=False)
class Read:
    """A config that is to be tuned, checked as far as it goes without its models."""

    given: Mapping[str, Any] = field(repr=False)
    """As the user gave it, without the section `tune`."""
    marks: Sequence[Mark]
    """The numbers to be found."""
    tune: Tune
    """The section `tune`."""
    settings: Settings = field(repr=False)
    """Those of the merge at the start."""
    hooks: Any = field(repr=False)
    """The plugins of the merge."""

    def config(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A config to merge: these values, and the section that says how they were searched."""
        return {**values, SECTION: {**values.get(SECTION, {}), "search": self.searched}}

    @property
    def whole(self) -> dict[str, Any]:
        """As the user gave it, with the section `tune`."""
        return {**self.given, KEY: self.searched}

    @property
    def searched(self) -> Any:
        """The section `tune`, as the user gave it."""
        return self.settings.given[SECTION]["search"]


def read(config: Mapping[str, Any] | str | os.PathLike[str]) -> Read:
    """A config by its keys, or in a file. Raises `ConfigError`."""
    given = dict(config) if isinstance(config, Mapping) else _document(Path(user_path(os.fspath(config))))
    marks = marks_of(given)
    section = given.pop(KEY, None) or {}
    if not marks:
        message = f"has no number to be found. Write {{{KEY}: [0, 1]}} in place of a weight or of another number"
        raise ConfigError(Problem(message, "config"))
    start = with_values(given, {mark.place: mark.start for mark in marks})
    try:
        settings, hooks = MergeConfig.from_dict({**start, SECTION: {"search": section}}).resolved()
    except ConfigError as error:
        raise ConfigError(
            *(evolve(p, where=p.where.replace(f"{SECTION}.search", KEY)) for p in error.problems)
        ) from None
    _check_bounds(given, marks)
    tuned = settings.sections[SECTION]
    return Read(given, marks, tuned.search if tuned is not None else Tune(), settings, hooks)


def _check_bounds(given: Mapping[str, Any], marks: Sequence[Mark]) -> None:
    """Raises `ConfigError` where an option may not have a value that a mark allows. Weights may have any."""
    start = {mark.place: mark.start for mark in marks}
    problems = []
    for mark in (mark for mark in marks if mark.place[-1] != "weight"):
        for name, bound in (("smallest", mark.low), ("largest", mark.high)):
            try:
                MergeConfig.from_dict(_without_output(with_values(given, start | {mark.place: bound})))
            except ConfigError as error:
                message = f"the {name} value that '{KEY}' allows cannot be used: it {error.problems[0].message}"
                problems.append(Problem(message, mark.where))
    if problems:
        raise ConfigError(*problems)


@frozen(eq=False)
class Opened:
    """The models of a config that is to be tuned."""

    read: Read
    """The config."""
    merger: ModelMerger = field(repr=False)
    """Of the start, without an output."""
    plan: MergePlan = field(repr=False)
    """At the start."""
    checkpoints: Sequence[Checkpoint] = field(repr=False)
    """Those of the plan, in its order."""
    space: Space
    """The numbers to be found."""
    updates: bool
    """Whether what the models change of their base is merged; the plan is then that of the models themselves."""
    notes: Sequence[str]
    """What the user should know of how finely they are found."""

    @property
    def has_base(self) -> bool:
        """Whether the last of the models is one that the others are compared with."""
        return len(self.plan.models) > len(self.read.settings.models)

    @property
    def scale(self) -> float | str | None:
        """What the strategy multiplies the merged update by at the start; None where that varies, or it has none."""
        found = getattr(self.read.settings.strategy_options, "scaling_factor", None)
        return found if isinstance(found, float | str) else None

    @property
    def models(self) -> list[str]:
        """The names of the models, the base last."""
        return [model.name for model in self.plan.models]

    @property
    def directory(self) -> Path:
        """Where config and tokenizer come from. Raises `ConfigError` where the model has no directory."""
        found = self.checkpoints[self.plan.donor].donor.directory
        if found is None:
            raise ConfigError(Problem("a model in memory has no tokenizer. Give models by their directories", "models"))
        return found


def opened(read: Read, lines: int) -> Opened:
    """Opens the models. lines: of each split, at least. Raises whatever forbids the merge."""
    if read.hooks.strategy.splits:  # without a model, what it makes of the others is something else
        read = evolve(read, marks=[without_zero(mark) if "weight" in mark.place else mark for mark in read.marks])
    start = with_values(read.given, {mark.place: mark.start for mark in read.marks})
    merger = ModelMerger(_without_output(start))
    plan = merger.plan()
    updates = plan.adds_up
    if updates:
        plan = merger.plan(composed=False)
    checkpoints = list(merger.load_models().values())
    per, notes = _granularities(read.marks, lines)
    changed = {name for checkpoint in checkpoints for name in checkpoint.changes} if updates else None
    shares = [
        {name: share for name, share in own.items() if changed is None or name in changed}
        for own in (_shares(read, mark, merger, plan, composed=not updates) for mark in read.marks)
    ]
    merger.config = MergeConfig.from_dict(_without_output(start))
    return Opened(read, merger, plan, checkpoints, Space.of(read.given, read.marks, per, shares), updates, notes)


def _granularities(marks: Sequence[Mark], lines: int) -> tuple[list[Per], list[str]]:
    notes = []
    if lines < 10:
        notes.append(f"{lines} lines a split are too few to find numbers on: 10 at least, better 100")
    per: list[Per] = []
    for mark in marks:
        inside = mark.place[0] not in ("models", "options") or top_of(mark.place)[-1] == "merge"
        in_list = any(isinstance(key, int) for key in mark.place[len(top_of(mark.place)) :])
        found = "model" if inside or in_list else granularity(mark.per, lines)
        if mark.per not in ("auto", found):
            reason = (
                "it stands in a list or in a merge within the merge"
                if inside or in_list
                else f"{lines} lines a split bear no more"
            )
            notes.append(f"{mark.where} is found per {found} and not per {mark.per}: {reason}")
        per.append(found)
    return per, notes


def _shares(read: Read, mark: Mark, merger: ModelMerger, plan: MergePlan, *, composed: bool) -> dict[str, float]:
    """Which tensors a mark is about. What is no number of a tensor, such as an option of a whole merge, is of none.

    composed: as for `ModelMerger.plan`.
    """
    if mark.place == top_of(mark.place):
        told = [tensor for tensor in plan.tensors if tensor.weights]
        weighs = mark.place[0] == "models" and mark.place[-1] == "weight"
        if weighs or any(str(mark.place[-1]) in _varying(tensor, mark) for tensor in told):
            return {tensor.name: 1.0 for tensor in told}
        return {}
    step = (mark.high - mark.start if mark.high > mark.start else mark.low - mark.start) / 2
    values = {one.place: one.start for one in read.marks} | {mark.place: mark.start + step}
    merger.config = MergeConfig.from_dict(_without_output(with_values(read.given, values)))
    return shares_of(mark, plan, merger.plan(composed=composed), step)


def _varying(tensor: Any, mark: Mark) -> Mapping[str, Any]:
    varying = tensor.varying()
    if mark.place[0] == "options":
        return cast("Mapping[str, Any]", varying.get("options", {}))
    of_models: Sequence[Mapping[str, Any]] = varying.get("model_options", ())
    i = cast("int", mark.place[1]) if len(mark.place) > 1 else -1
    return of_models[i] if 0 <= i < len(of_models) else {}


def _without_output(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("output_path", "validation")}


def _document(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(Problem(f"cannot be read ({error.strerror})", str(path))) from error
    form: Literal["yaml", "json"] = "json" if path.suffix.lower() == ".json" else "yaml"
    return parse_document(content, source=str(path), format=form)
