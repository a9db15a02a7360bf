"""What documents of the output say of where things lay: names and Hub ids, and of local paths the last part alone."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from modelmerger.values.errors import Problem
from modelmerger.values.model_reference import user_path
from modelmerger.values.plan import MergePlan, PlannedModel

if TYPE_CHECKING:
    from modelmerger.values.findings import ValidationReport

_CACHED = re.compile(r"models--([^/]+)--([^/]+)/snapshots/[^/]+/?$")
_LOCAL = re.compile(r"/|~[^/\s]*/|\.{1,2}[/\\]|[A-Za-z]:[/\\]|file:")
"""How a text begins that is a local path, whether that exists or not."""
_HANDED = r"\((.+), blake3 "
"""The pattern of the file of a plugin that is not installed, in what is said of where it came from."""
_QUOTED = r"(['\"`])((?:/|~/|\.{1,2}/)[^'\"`\n]+)\1"
_WORD = r"[^\s'\"`,;|()<>\[\]{}]+"
_TEXTS = ("test_prompts", "name")
"""Keys of a config whose values are texts, whatever they look like."""


def recorded_path(path: str) -> str:
    """A Hub id as it is, also where the path leads into a Hub cache; of another path the last part."""
    if found := _CACHED.search(path):
        return f"{found[1]}/{found[2]}"
    return PurePosixPath(path.replace("\\", "/")).name or path


def is_local(text: str) -> bool:
    """Whether a text is a path on this disk, and neither a Hub id nor anything else."""
    if not text or "\n" in text or "\0" in text or len(text) > 4096:
        return False
    return _LOCAL.match(text) is not None or _is_there(text)


def _is_there(text: str) -> bool:
    return "/" in text and os.path.lexists(user_path(text))


@frozen
class Recording:
    """Turns what a run knows into what is recorded of it."""

    paths: Sequence[str] = ()
    """Paths that texts may name, the longest first."""
    as_given: bool = False
    """Whether paths are recorded as they are."""

    @classmethod
    def of(cls, paths: Iterable[str], *, as_given: bool) -> "Recording":
        """paths: of everything that the run reads and writes."""
        spelled = {form for path in paths for form in (path, os.path.abspath(user_path(path)), os.path.realpath(path))}
        return cls(sorted((path for path in spelled if "/" in path.strip("/")), key=len, reverse=True), as_given)

    def text(self, text: str) -> str:
        """A sentence, in which of each local path the last part is left."""
        if self.as_given:
            return text
        for path in self.paths:
            if path in text:
                name = recorded_path(path).replace("\\", r"\\")
                text = re.sub(rf"(?<![\w./~-]){re.escape(path)}(?![\w-])", name, text)
        text = re.sub(_QUOTED, lambda found: found[1] + recorded_path(found[2]) + found[1], text)
        return re.sub(_WORD, lambda found: _shortened(found[0]), text)

    def note(self, note: Problem) -> Problem:
        """A note whose texts have no local path."""
        return evolve(note, where=self.text(note.where), message=self.text(note.message))

    def value(self, value: Any) -> Any:
        """Plain data of a config, in which each text that is a local path is its last part."""
        if self.as_given:
            return value
        if isinstance(value, Mapping):
            return {key: inner if key in _TEXTS else self.value(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        known = isinstance(value, str) and (is_local(value) or value in self.paths)
        return recorded_path(value) if known else value

    def plan(self, plan: MergePlan) -> MergePlan:
        """A plan whose models, and those of merges within it, have no local paths."""
        return plan if self.as_given else evolve(plan, models=[self._model(model) for model in plan.models])

    def _model(self, model: PlannedModel) -> PlannedModel:
        path = model.path if model.revision or model.merge is not None else self.value(model.path)
        return evolve(model, path=path, merge=self.plan(model.merge) if model.merge is not None else None)

    def report(self, report: "ValidationReport") -> "ValidationReport":
        """A report as companions have it. What models were asked and answered stays as it is."""
        if self.as_given:
            return report
        handed = [path for source in report.validators.values() for path in re.findall(_HANDED, source)]
        asked = [report.directory, *handed, *_local_texts(report.settings)]
        texts = Recording.of([*self.paths, *asked], as_given=False)
        return evolve(
            report,
            directory=recorded_path(os.path.abspath(report.directory)),
            validators={name: texts.text(source) for name, source in report.validators.items()},
            settings=texts.value(report.settings),
            findings=[evolve(finding, evidence=texts.text(finding.evidence)) for finding in report.findings],
        )


def _local_texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from () if key in _TEXTS else _local_texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _local_texts(inner)
    elif isinstance(value, str) and is_local(value):
        yield value


def _shortened(word: str) -> str:
    """A word of a sentence; of a path, the last part."""
    bare = word.rstrip(".:!?…")
    if "/" not in bare.strip("/") or ("://" in bare and not bare.startswith("file:")):
        return word
    return recorded_path(bare) + word[len(bare) :] if is_local(bare) else word
