"""Hooks about merged models: how they come back as objects, what they are measured by, and what is written about that."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelmerger.hooks.markers import hookspec
from modelmerger.values.findings import Finding, ValidationReport
from modelmerger.values.labels import LabelScores
from modelmerger.values.settings import Settings, ValidationSettings
from modelmerger.values.subject import Purpose, Subject


@hookspec
def name_companions(options: Any) -> Iterable[str]:
    """The names of files in the output directory that this plugin may write again after the merge. Every plugin is asked.

    Their content is not digested in the manifest, so that `verify` holds after a validation. Names are without folders.

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
    """What `ModelMerger.merge()` returns for a directory that it published, where that is no whole model. None: not mine.

    `base`: where the model lies that the directory's content belongs to; None for a whole model, which the core loads itself.
    `load(path)` loads a whole model through transformers, placed as the config says. `low_memory_mode`: whether the user wants
    weights to stay on the disk.

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
def materialise_model(
    directory: Path, merged: bool, settings: Settings | None, target: Path | None, options: Any
) -> Path | None:
    """Makes a model that transformers cannot load from its directory into one that it can, for a validation. None: not mine.

    The answer is where it then lies: the plugin writes it to `target`, which does not exist yet. Without a `target`
    it only says whether it could: raise `MergeError` and its kin, and answer the directory. `settings`: of the merge that
    the model belongs to, if any. `merged`: whether the model came out of that merge, and was not a source of it.

    ```python
    import shutil
    from modelmerger import hookimpl

    @hookimpl
    def materialise_model(directory, target):
        inner = directory / "export"                   # this team's models lie one folder further down
        if not (inner / "config.json").exists():
            return None
        return shutil.copytree(inner, target) if target is not None else directory
    ```
    """


@hookspec(firstresult=True)
def provide_texts(purpose: Purpose, options: Any) -> Mapping[str, Sequence[str]] | None:
    """The texts that models are scored on, or the prompts they get, where a config names none: label → texts.

    A label says what a text is an example of (a language, a dialect, a domain). None: not mine, ask the next.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def provide_texts(purpose):
        if purpose == "prompting":
            return {"formal": ["How do you do?"], "casual": ["What's up?"]}
    ```
    """


@hookspec(firstresult=True)
def score_labels(texts: Sequence[str], options: Any) -> LabelScores | None:
    """How probable each label (a dialect, a language) is for each text. None: not mine, ask the next.

    A third party's plugin is asked before the built-in ones. `stated` says the scorer's own
    accuracy; it is shown beside every figure made of its answers.

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
    """Validator, optional: whether it runs where the config names no `metrics`. Without this hook it does not.

    Only validators that are also entry points of the group `modelmerger.default_validators` are asked: the others are not even
    imported before a config names them.

    ```python
    from modelmerger import hookimpl

    @hookimpl
    def wants_validation(settings):
        return bool(settings.test_prompts)
    ```
    """


@hookspec
def validate_model(subject: Subject, settings: ValidationSettings, options: Any) -> Iterable[Finding]:
    """Validator: looks at a model and yields findings: numbers, each with how it was measured.

    Called once for the merged model, and for each of its sources where the config says `compare_with_sources`. The module says by
    `metrics` what it can find, and which way each is better; `subject` opens the models, one at a time. What cannot be measured is
    said by `UnmeasurableError`, or by a finding whose value is None; the core fills in `model`, `threshold` and `crossed`.

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
    directory: Path, manifest: Mapping[str, Any], report: ValidationReport, options: Any
) -> Mapping[str, bytes]:
    """Files about a validation, beside a published model: name → content. Every plugin is asked.

    `directory`: of the merged model, with what an earlier validation left in it. `manifest`: what its modelmerger.json holds.
    The core writes what is answered, each file beside and renamed over; `validation.json` is its own. A name is without
    folders, and is not that of a file that the merge published with a digest; two plugins with one name are an error. What models answered is hostile text: escape it.

    ```python
    import html
    from modelmerger import hookimpl

    @hookimpl
    def write_companions(report):
        return {"report.html": f"<pre>{html.escape(str(report))}</pre>".encode()}
    ```
    """
