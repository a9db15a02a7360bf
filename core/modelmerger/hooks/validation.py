"""The hooks about merged models and validations, with typed arguments, and answers that are checked."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from modelmerger.hooks.answers import is_list_of
from modelmerger.hooks.calls import Calls
from modelmerger.hooks.files import gather_files
from modelmerger.hooks.validators import Validator
from modelmerger.values.errors import PluginError, UnmeasurableError
from modelmerger.values.plain_names import is_plain_name
from modelmerger.values.settings import Settings, ValidationSettings

if TYPE_CHECKING:
    from modelmerger.values.findings import Better, Finding, ValidationReport
    from modelmerger.values.subject import LabelScores, Purpose, Subject, Texts


@frozen(eq=False, repr=False)
class ValidationHooks:
    """Hooks about merged models: how they are returned as objects, how they are measured, what is written about it."""

    calls: Calls
    """The plugins of the run."""
    validators: Mapping[str, Validator]
    """The validators of the run, by name."""

    @property
    def metrics(self) -> "dict[str, Better]":
        """The metrics that the validators can find, and which way each is better."""
        return {name: way for validator in self.validators.values() for name, way in validator.metrics.items()}

    def wanted(self, settings: ValidationSettings) -> list[str]:
        """The keys of the validators that run where the config names none, in the order in which they are asked."""
        answers = self.calls.ask_each("wants_validation", settings=settings)
        for plugin, wanted in answers:
            if not isinstance(wanted, bool):
                raise self.calls.wrong_answer("wants_validation", wanted, "True or False", plugin)
        return [plugin for plugin, wanted in answers if wanted]

    def companions(self) -> list[str]:
        """The names of files that plugins may write again after the merge."""
        answers = self.calls.ask_each("name_companions")
        for plugin, names in answers:
            if not is_list_of(str, names) or not all(map(is_plain_name, names)):
                raise self.calls.wrong_answer("name_companions", names, "names of files", plugin)
        return sorted({name for _, names in answers for name in names})

    @property
    def others_return_models(self) -> bool:
        """Whether a plugin of another distribution may load a published model in its own way."""
        return any(not self.calls.providers[plugin].built_in for plugin in self.calls.plugins_with("return_model"))

    def return_model(
        self, directory: Path, base: Path | None, load: Callable[[Path], Any], *, low_memory_mode: bool
    ) -> Any:
        """What a plugin makes of a directory that does not hold a whole model; None where no plugin knows it."""
        arguments: dict[str, Any] = {"base": base, "load": load, "low_memory_mode": low_memory_mode}
        return self.calls.ask_first("return_model", directory=directory, **arguments)

    def name_saved_tensors(self, names: Sequence[str]) -> dict[str, str]:
        """What files call the tensors of a returned model, by their names in its state dict; for all of them."""
        found = self.calls.ask_first("name_saved_tensors", names=names)
        if found is None:
            return {name: name for name in names}
        if not isinstance(found, Mapping) or not is_list_of(str, [*found, *found.values()]):
            raise self.calls.wrong_answer("name_saved_tensors", found, "names by name, or None")
        new = {name: found.get(name, name) for name in names}
        if len(set(new.values())) < len(new):
            raise self.calls.wrong_answer("name_saved_tensors", "one name for two tensors", "a name for each")
        return new

    def materialise_model(
        self, directory: Path, target: Path | None, settings: Settings | None = None, *, merged: bool
    ) -> Path | None:
        """The directory from which transformers can load the model; None where no plugin knows it."""
        arguments: dict[str, Any] = {"target": target, "settings": settings, "merged": merged}
        found = self.calls.ask_first("materialise_model", directory=directory, **arguments)
        if found is not None and not isinstance(found, Path):
            raise self.calls.wrong_answer("materialise_model", found, "a Path or None")
        return found

    def provide_texts(self, purpose: "Purpose") -> "Texts":
        """Label → texts. Raises `UnmeasurableError` where no plugin has any."""
        found = self.calls.ask_first("provide_texts", purpose=purpose)
        if found is None:
            raise UnmeasurableError(f"no plugin has texts for {purpose}, and the config gives none")
        sound = isinstance(found, Mapping) and is_list_of(str, list(found))
        if not sound or not all(is_list_of(str, group) for group in found.values()):
            raise self.calls.wrong_answer("provide_texts", found, "lists of texts by label")
        texts: Texts = found
        return texts

    def score_labels(self, texts: Sequence[str]) -> "LabelScores":
        """The probabilities of labels, one row a text. Raises `UnmeasurableError` where no plugin scores labels."""
        found = self.calls.ask_first("score_labels", texts=texts)
        if found is None:
            raise UnmeasurableError("no plugin scores labels")
        from modelmerger.values.subject import LabelScores

        if not isinstance(found, LabelScores):
            raise self.calls.wrong_answer("score_labels", found, "LabelScores or None")
        if len(found.rows) != len(texts) or any(len(r) != len(found.labels) for r in found.rows if r is not None):
            due = f"{len(texts)} rows of one number a label"
            raise self.calls.wrong_answer("score_labels", f"{len(found.rows)} rows", due)
        return found

    def validate_model(self, validator: str, subject: "Subject", settings: ValidationSettings) -> "Iterator[Finding]":
        """What one validator finds, as it finds it. Raises `UnmeasurableError` where it cannot measure the model."""
        from modelmerger.values.findings import Finding

        hook, plugin = "validate_model", self.validators[validator].plugin.key
        answer = self.calls.ask_one(hook, plugin, subject=subject, settings=settings)
        if not isinstance(answer, Iterable):
            raise self.calls.wrong_answer(hook, answer, "Findings", plugin)
        findings = iter(answer)
        given = {"subject": subject}
        while (finding := self.calls.guard(hook, partial(next, findings, None), given=given)) is not None:
            metrics = self.validators[validator].metrics
            if not isinstance(finding, Finding) or finding.metric not in metrics:
                raise self.calls.wrong_answer(hook, finding, f"a Finding of {', '.join(metrics)}", plugin)
            if not isinstance(finding.value, Real | None):
                raise self.calls.wrong_answer(hook, repr(finding.value), "a number or None", plugin)
            for name in ("evidence", "unit", "label"):
                if not isinstance(text := getattr(finding, name), str):
                    raise self.calls.wrong_answer(hook, f"{name}={text!r}", "a text", plugin)
            if finding.value is not None and type(finding.value) not in (int, float):
                finding = evolve(finding, value=float(finding.value))  # a number of numpy, which JSON does not have
            yield finding

    def write_companions(
        self,
        directory: Path,
        manifest: Mapping[str, Any],
        report: "ValidationReport",
        reserved: Mapping[str, str],
        without: Callable[[PluginError], None],
    ) -> dict[str, bytes]:
        """The files about a validation: content by name. reserved: names that are taken, and who has them.

        without: what is told that a plugin failed, whose files are left out.
        """
        arguments: dict[str, Any] = {"directory": directory, "manifest": manifest, "report": report}
        return gather_files(self.calls, "write_companions", reserved, is_plain_name, without=without, **arguments)
