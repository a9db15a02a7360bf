"""Hooks about merged models: how they are returned as objects, how they are measured, what is written about that."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelmerger.hooks.markers import hookspec
from modelmerger.values.settings import Settings, ValidationSettings

if TYPE_CHECKING:
    from modelmerger.values.findings import Finding, ValidationReport
    from modelmerger.values.subject import LabelScores, Purpose, Subject


@hookspec
def name_companions(options: Any) -> Iterable[str]:
    """Returns names of files in the output directory that may be written again after the merge. Every plugin is asked.

    The manifest has no digests of these files, so that `verify` still passes after a validation. Names have no folders.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def name_companions():
        return ["report.html"]
    ```
    """


@hookspec(firstresult=True)
def return_model(
    directory: Path, base: Path | None, load: Callable[[Path], Any], low_memory_mode: bool, options: Any
) -> Any | None:
    """Loads what `ModelMerger.merge()` returns for a published directory that does not hold a whole model.

    None: ask the next plugin. `base`: where the model is that the content of the directory belongs to; None for a whole
    model, which the core loads itself if no plugin answers. `load(path)` loads a whole model through transformers,
    placed as the config says. `low_memory_mode`: whether weights should stay on the disk.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def return_model(directory, base, load):
        if not (directory / "prompt.txt").exists():     # a model and a text to begin with
            return None
        return load(base), (directory / "prompt.txt").read_text()
    ```
    """


@hookspec(firstresult=True)
def name_saved_tensors(names: Sequence[str], options: Any) -> Mapping[str, str] | None:
    """Returns what files call the tensors of a returned model that is saved elsewhere: name in its state dict → name.

    A name that is left out stays. None: ask the next plugin. The built-in one takes off what is written into names
    where layers are wrapped, such as by `torch.compile`. No two names may come to one.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def name_saved_tensors(names):
        return {name: name.replace(".traced.", ".") for name in names}     # of this team's own wrapper
    ```
    """


@hookspec(firstresult=True)
def materialise_model(
    directory: Path, merged: bool, settings: Settings | None, target: Path | None, options: Any
) -> Path | None:
    """Turns a model that transformers cannot load into one that it can, for a validation. None: ask the next plugin.

    Writes the model to `target`, which does not exist yet, and returns where it is. Without a `target`, it only checks
    whether that is possible, and returns the directory. Raise a `MergeError` where it is impossible. `settings`: those
    of the merge that the model belongs to, if there is one. `merged`: whether the model is the result of that merge
    rather than one of its sources.

    ```python
    import shutil
    from modelmerger import hookimpl

    @hookimpl
    def materialise_model(directory, target):
        inner = directory / "export"                   # this team's models are one folder further down
        if not (inner / "config.json").exists():
            return None
        return shutil.copytree(inner, target) if target is not None else directory
    ```
    """


@hookspec(firstresult=True)
def provide_texts(purpose: "Purpose", options: Any) -> Mapping[str, Sequence[str]] | None:
    """Returns texts to score models on, or prompts for them, where the config gives none: label → texts.

    A label is what the text is an example of (a language, a dialect, a domain). None: ask the next plugin.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def provide_texts(purpose):
        if purpose == "prompting":
            return {"formal": ["How do you do?"], "casual": ["What's up?"]}
    ```
    """


@hookspec(firstresult=True)
def score_labels(texts: Sequence[str], options: Any) -> "LabelScores | None":
    """Returns how probable each label (a dialect, a language) is for each text. None: ask the next plugin.

    Plugins of other distributions are asked before the built-in ones. `LabelScores.stated` is a sentence about the
    accuracy of the scores, and is shown beside every figure that is made of them.

    ```python
    from modelmerger import LabelScores, hookimpl

    @hookimpl
    def score_labels(texts):
        rows = [(1.0, 0.0) if "Yours sincerely" in text else (0.5, 0.5) for text in texts]
        return LabelScores(scorer="one phrase", stated="never measured", labels=("formal", "casual"), rows=rows)
    ```
    """


@hookspec
def wants_validation(settings: ValidationSettings, options: Any) -> bool:
    """Validator, optional: whether it runs where the config names no `metrics`. Without this hook, it does not.

    Only validators that are also entry points of the group `modelmerger.default_validators` are asked. Others are not
    even imported unless a config names them.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def wants_validation(settings):
        return bool(settings.test_prompts)
    ```
    """


@hookspec
def validate_model(subject: "Subject", settings: ValidationSettings, options: Any) -> "Iterable[Finding]":
    """Validator: measures a model, and yields findings: numbers, each with how it was measured.

    Called once for the merged model, and once for each of its sources with `compare_with_sources`. The module's
    `metrics` declare what it can find, and which way each is better. `subject` opens the models, one at a time. If
    something cannot be measured, raise `UnmeasurableError`, or yield a finding whose value is None. The core fills in
    `model`, `better`, `threshold` and `crossed`.

    ```python
    from modelmerger import Finding, hookimpl

    metrics = {"longest_answer": "lower"}

    @hookimpl
    def validate_model(subject):
        lengths = [len(answer.ids) for group in subject.answers().values() for answer in group]
        yield Finding(metric="longest_answer", value=max(lengths), unit="tokens", evidence=f"{len(lengths)} answers")
    ```
    """


@hookspec
def write_companions(
    directory: Path, manifest: Mapping[str, Any], report: "ValidationReport", options: Any
) -> Mapping[str, bytes]:
    """Returns files about a validation, beside a published model: name → content. Every plugin is asked.

    `directory`: of the merged model, with the files of an earlier validation, if there was one. `manifest`: the content
    of its modelmerger.json. The core writes the files, each in place of an older one by a rename; it also writes
    `validation.json`. A name has no folders, and must not be that of a file whose digest is in the manifest. If two
    plugins have a file of the same name, that is an error. The answers of models are hostile text: escape them.

    ```python
    import html
    from modelmerger import hookimpl

    @hookimpl
    def write_companions(report):
        return {"report.html": f"<pre>{html.escape(str(report))}</pre>".encode()}
    ```
    """
