"""A validation from models to a report: one model after another through every validator, then thresholds and files."""

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import asdict, evolve

from modelmerger.hooks.assembly import Hooks
from modelmerger.hooks.validation import ValidationHooks
from modelmerger.hooks.validators import Validator
from modelmerger.validation.candidate import Candidate, merged_candidate
from modelmerger.validation.companions import write_companions
from modelmerger.validation.models import Models
from modelmerger.validation.subject import MeasuredModel
from modelmerger.validation.texts import asked_prompts, scored_texts
from modelmerger.values.errors import MergeError, Problem, UnmeasurableError
from modelmerger.values.findings import Finding, Sample, ValidationReport, judged
from modelmerger.values.report import MergeReport
from modelmerger.values.settings import Settings, ValidationSettings
from modelmerger.values.text import shown

Progress = Callable[[str, int, int], None]
"""Called with the next task, how many tasks are done, and how many there are."""
log = logging.getLogger("modelmerger")


def no_progress(_: str, __: int, ___: int) -> None:
    """Ignores progress."""


def validate(
    candidate: Candidate, settings: ValidationSettings, hooks: Hooks, progress: Progress = no_progress
) -> ValidationReport:
    """Runs the validators. The report says what could not be measured. Raises `PluginError` for a broken validator.

    One model is in memory at a time, besides what the caller holds. Nothing is written.
    """
    asked = hooks.validation
    texts = scored_texts(settings, asked.provide_texts)
    prompts = asked_prompts(settings, asked.provide_texts, asked.score_labels)
    of_merge = candidate.settings, candidate.name
    given = [text for found in (texts, prompts) for group in found.values() for text in group]
    models = Models(candidate.places, settings.test_batch_size, hooks, candidate.device_map, *of_merge, given)
    sources = [source.name for source in candidate.sources]
    base = candidate.base.name if candidate.base is not None else None
    names = [candidate.name, *(sources if settings.compare_with_sources else [])]
    findings: list[Finding] = []
    samples: list[Sample] = []
    total = len(names) * len(asked.validators)
    for i, name in enumerate(names):
        others = [source for source in sources if source != name]
        subject = MeasuredModel(name, models, others, base, texts, prompts, settings, asked.score_labels)
        for j, (validator, declared) in enumerate(asked.validators.items()):
            progress(f"{name}: {validator}", i * len(asked.validators) + j, total)
            findings += _found(asked, validator, declared, subject, settings)
        samples += _samples(asked, subject, bool(settings.test_prompts))
    progress("", total, total)
    limits = settings.thresholds or {}
    judge = {metric: (limits.get(metric), way) for metric, way in asked.metrics.items()}
    return ValidationReport(
        directory=str(candidate.directory),
        validators={name: validator.plugin.provider.source for name, validator in asked.validators.items()},
        settings=_plain(settings, asked.validators),
        findings=[judged(f, *judge[f.metric]) if f.model == candidate.name and not f.label else f for f in findings],
        samples=samples,
    )


def validate_published(
    report: MergeReport,
    settings: Settings,
    hooks: Hooks,
    progress: Progress = no_progress,
    held: tuple[Any, Any] | None = None,
) -> MergeReport:
    """The report of a merge with that of its validation, if the config asks for one, whose companions are written.

    held: the model and its tokenizer, or the directory of that, where the model is in memory alone.
    """
    directory = Path(report.output)
    with published_already(directory) if held is None else contextlib.nullcontext():
        if settings.validation is None or not settings.validation.run_tests:
            return report
        found = validate(merged_candidate(directory, settings, held), settings.validation, hooks, progress)
        save_report(directory, found, hooks)
    return evolve(report, validation=found)


def save_report(directory: Path, report: ValidationReport, hooks: Hooks) -> None:
    """Writes the companions of a published model."""
    write_companions(directory, report, hooks.validation)


@contextlib.contextmanager
def published_already(directory: Path) -> Iterator[None]:
    """What goes wrong in here, or is interrupted, says that the merged model is there all the same."""
    begun = f"the merged model is at {shown(os.path.abspath(directory))}; its validation"
    try:
        yield
    except KeyboardInterrupt as error:
        error.args = (f"{begun} was interrupted. Run modelmerger validate to validate it again.",)
        raise
    except MergeError as error:
        raise type(error)(Problem(f"{begun} failed."), *error.problems) from error


def _found(
    hooks: ValidationHooks, name: str, validator: Validator, subject: MeasuredModel, settings: ValidationSettings
) -> list[Finding]:
    """What a validator finds about a model: one finding a metric at least, without a value if it cannot be measured."""
    found: list[Finding] = []
    reason = f"{name} gave no number"
    try:
        found.extend(map(_with_a_number, hooks.validate_model(name, subject, settings)))
    except UnmeasurableError as error:
        reason = error.problems[0].message
    measured = {finding.metric for finding in found if not finding.label}
    found += [Finding(metric=m, value=None, evidence=reason) for m in validator.metrics if m not in measured]
    return [evolve(finding, model=subject.name, better=validator.metrics[finding.metric]) for finding in found]


def _with_a_number(finding: Finding) -> Finding:
    """A NaN or an infinity is no measurement."""
    if finding.value is None or math.isfinite(finding.value):
        return finding
    return evolve(finding, value=None, evidence=f"it came out as {finding.value}, of {finding.evidence}")


def _samples(hooks: ValidationHooks, subject: MeasuredModel, asked: bool) -> list[Sample]:
    """What the model answered, if a validator wanted answers, or the config gives prompts."""
    if not (subject.answered or asked):
        return []
    try:
        answers = [(label, answer) for label, group in subject.answers().items() for answer in group]
    except UnmeasurableError as error:
        log.info("%s was not asked: %s", subject.name, error)
        return []
    try:
        named = hooks.score_labels([answer.text for _, answer in answers]).best_labels()
    except UnmeasurableError:
        named = [None] * len(answers)
    return [
        Sample(prompt=a.prompt, answer=a.text, label=label, answered_label=name or "", model=subject.name)
        for (label, a), name in zip(answers, named, strict=True)
    ]


def _plain(settings: ValidationSettings, validators: Mapping[str, Validator]) -> dict[str, Any]:
    """The settings as plain data, with what they come to."""
    prompts = settings.test_prompts
    given = {key: list(group) for key, group in prompts.items()} if isinstance(prompts, dict) else list(prompts)
    filled = {"test_prompts": given, "metrics": list(validators), "max_new_tokens": settings.new_tokens}
    for validator in validators.values():
        filled |= asdict(validator.options) if validator.options is not None else {}
    size = settings.most_texts or (f"{settings.each} of each label" if settings.each else "all")
    return asdict(settings) | filled | {"sample_size": size, "thresholds": settings.thresholds or {}}
