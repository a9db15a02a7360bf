"""The typed face of the plugins in a validation: what they bring, what validators find, what is written about that."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

from attrs import frozen

from modelmerger.hooks.answers import is_list_of
from modelmerger.hooks.calls import Calls
from modelmerger.hooks.files import gather_files
from modelmerger.hooks.validators import Validator
from modelmerger.values.errors import UnmeasurableError
from modelmerger.values.findings import Better, Finding, ValidationReport
from modelmerger.values.labels import LabelScores
from modelmerger.values.plain_names import is_plain_name
from modelmerger.values.settings import Settings, ValidationSettings
from modelmerger.values.subject import Purpose, Subject, Texts


@frozen(eq=False)
class ValidationHooks:
    """Hooks about merged models: how they come back as objects, what they are measured by, what is written about that."""

    calls: Calls
    """Through which plugins are asked."""
    validators: Mapping[str, Validator]
    """The validators of the run, by name."""

    @property
    def metrics(self) -> dict[str, Better]:
        """What the validators can find → which way it is better."""
        return {name: way for validator in self.validators.values() for name, way in validator.metrics.items()}

    def wanted(self, settings: ValidationSettings) -> list[str]:
        """The validators that run where the config names none: their keys, in the order in which they are asked."""
        answers = self.calls.each("wants_validation", settings=settings)
        for plugin, wanted in answers:
            if not isinstance(wanted, bool):
                raise self.calls.wrong_answer("wants_validation", wanted, "True or False", plugin)
        return [plugin for plugin, wanted in answers if wanted]

    def companions(self) -> list[str]:
        """The names of files that plugins may write again after the merge."""
        answers = self.calls.each("name_companions")
        for plugin, names in answers:
            if not is_list_of(str, names) or not all(map(is_plain_name, names)):
                raise self.calls.wrong_answer("name_companions", names, "names of files", plugin)
        return sorted({name for _, names in answers for name in names})

    def return_model(
        self, directory: Path, base: Path | None, load: Callable[[Path], Any], *, low_memory_mode: bool
    ) -> Any:
        """What a plugin makes of a directory that holds no whole model; None where no plugin knows it."""
        arguments: dict[str, Any] = {"base": base, "load": load, "low_memory_mode": low_memory_mode}
        return self.calls.first("return_model", directory=directory, **arguments)

    def materialise_model(
        self, directory: Path, target: Path | None, settings: Settings | None = None, *, merged: bool
    ) -> Path | None:
        """Where a plugin has put what transformers can load; None where no plugin knows the model."""
        arguments: dict[str, Any] = {"target": target, "settings": settings, "merged": merged}
        found = self.calls.first("materialise_model", directory=directory, **arguments)
        if found is not None and not isinstance(found, Path):
            raise self.calls.wrong_answer("materialise_model", found, "a Path or None")
        return found

    def provide_texts(self, purpose: Purpose) -> Texts:
        """Label → texts; raises `UnmeasurableError` where no plugin has any."""
        found = self.calls.first("provide_texts", purpose=purpose)
        if found is None:
            raise UnmeasurableError(f"no plugin has texts for {purpose}, and the config gives none")
        sound = isinstance(found, Mapping) and is_list_of(str, list(found))
        if not sound or not all(is_list_of(str, group) for group in found.values()):
            raise self.calls.wrong_answer("provide_texts", found, "lists of texts by label")
        texts: Texts = found
        return texts

    def score_labels(self, texts: Sequence[str]) -> LabelScores:
        """One row a text; raises `UnmeasurableError` where no plugin scores labels."""
        found = self.calls.first("score_labels", texts=texts)
        if found is None:
            raise UnmeasurableError("no plugin scores labels")
        if not isinstance(found, LabelScores):
            raise self.calls.wrong_answer("score_labels", found, "LabelScores or None")
        if len(found.rows) != len(texts) or any(len(r) != len(found.labels) for r in found.rows if r is not None):
            due = f"{len(texts)} rows of one number a label"
            raise self.calls.wrong_answer("score_labels", f"{len(found.rows)} rows", due)
        return found

    def validate_model(self, validator: str, subject: Subject, settings: ValidationSettings) -> Iterator[Finding]:
        """What one validator finds, as it finds it. `UnmeasurableError` passes."""
        hook, plugin = "validate_model", self.validators[validator].plugin.key
        answer = self.calls.one(hook, plugin, subject=subject, settings=settings)
        if not isinstance(answer, Iterable):
            raise self.calls.wrong_answer(hook, answer, "Findings", plugin)
        findings = iter(answer)
        while (finding := self.calls.guarded(hook, partial(next, findings, None))) is not None:
            metrics = self.validators[validator].metrics
            if not isinstance(finding, Finding) or finding.metric not in metrics:
                raise self.calls.wrong_answer(hook, finding, f"a Finding of {', '.join(metrics)}", plugin)
            if not isinstance(finding.value, Real | None):
                raise self.calls.wrong_answer(hook, repr(finding.value), "a number or None", plugin)
            yield finding

    def write_companions(
        self, directory: Path, manifest: Mapping[str, Any], report: ValidationReport, taken: Mapping[str, str]
    ) -> dict[str, bytes]:
        """The files about a validation. `taken`: names that others have, and who they are."""
        arguments: dict[str, Any] = {"directory": directory, "manifest": manifest, "report": report}
        return gather_files(self.calls, "write_companions", taken, is_plain_name, **arguments)
