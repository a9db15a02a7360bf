"""`MergeTuner`: from a config with numbers to be found to one with numbers, the evidence for them, and the model."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve
from modelmerger import ConfigError, MergeConfig, MergeReport, Problem, UnmeasurableError
from modelmerger import merge as merge_config

from modelmerger_plugins.tune.opened import SECTION, Opened, Read, opened, read
from modelmerger_plugins.tune.result import CONFIG, config_text, folder_of, write
from modelmerger_plugins.tune.study import Study
from modelmerger_plugins.tune.texts import Texts, texts_of

if TYPE_CHECKING:
    from modelmerger_plugins.tune.outlook import TunePlan
    from modelmerger_plugins.tune.report import TuneReport
    from modelmerger_plugins.tune.searching import Progress

Objective = Callable[[Any, Any], float]
"""What is made small in place of the config's objective: of the merged model and its tokenizer, a number."""
log = logging.getLogger("modelmerger")


class MergeTuner:
    """Finds the numbers that a config leaves open.

    config: a mapping with its keys, or the path of its file, with `{tune: [low, high]}` in place of numbers and a
    section `tune`. objective: called with the merged model and its tokenizer for each vector of numbers that is tried;
    what it returns is made small. Raises `ConfigError`.

    ```python
    from modelmerger_plugins.tune import MergeTuner

    tuner = MergeTuner("dialects.yaml")
    print(tuner.tune())
    tuner.merge()
    ```
    """

    def __init__(
        self, config: Mapping[str, Any] | str | os.PathLike[str], *, objective: Objective | None = None
    ) -> None:
        self._read: Read = read(config)
        self._objective = objective
        self.report: TuneReport | None = None
        """What the last search found."""

    def tune(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        resume: bool = False,
        progress: "Progress | None" = None,
    ) -> "TuneReport":
        """Searches, and writes study, `tuned.yaml` and page into `OUTPUT.tune`.

        output: in place of the config's output_path. resume: goes on with the study of a search that was ended.
        progress: called with steps done, steps in all, and the objective. A KeyboardInterrupt during the search ends it
        with the best numbers so far. Raises `MergeError`.
        """
        from modelmerger_plugins.tune.work import searched

        folder = self._folder(output)
        texts = self._texts()
        found = opened(self._read, texts.fewest)
        study = Study(folder, self._about(found, texts), resume=resume)
        try:
            report = searched(found, texts, study, self._objective, progress or _untold)
        finally:
            study.close()
        tuned = {"study": report.study, "texts": dict(report.texts)}
        config = self._read.config({**report.config, SECTION: tuned})
        if output is not None or "output_path" not in config:
            config["output_path"] = os.fspath(output) if output is not None else str(self._output(output))
        self.report = evolve(report, config=config)
        write(folder, CONFIG, config_text(self.report).encode())
        self._write_page(folder)
        return self.report

    def plan(self) -> "TunePlan":
        """What a search will take here: memory and time, by a step of it. Nothing is written. Raises `MergeError`."""
        from modelmerger_plugins.tune.foreseeing import planned

        texts = self._texts()
        return planned(opened(self._read, texts.fewest), texts, self._objective)

    def merge(self) -> MergeReport:
        """Merges with the numbers that were found, after a search if there was none yet. Raises `MergeError`.

        Where no numbers met the constraints, nothing is merged, and `ConfigError` says so.
        """
        report = self.report or self.tune()
        if not report.feasible:
            raise ConfigError(
                "no numbers met all constraints, so nothing is merged. Loosen them, or raise search.steps."
            )
        merged = merge_config(MergeConfig.from_dict(report.config))
        self.report = evolve(report, merged=merged)
        self._write_page(Path(report.folder))
        return merged

    def _write_page(self, folder: Path) -> None:
        if self.report is None:
            return
        try:
            from modelmerger_plugins.tune.page import PAGE, render
        except ModuleNotFoundError as error:
            log.warning("the page is not written: %s. Install modelmerger[report].", error)
            return
        write(folder, PAGE, render(self.report))

    def _output(self, output: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
        found = output or self._read.settings.output_path
        if found is None:
            raise ConfigError(Problem("is missing. Say where the tuned model goes", "output_path"))
        return found

    def _folder(self, output: str | os.PathLike[str] | None) -> Path:
        return folder_of(self._output(output))

    def _texts(self) -> Texts:
        return texts_of(self._read.tune.texts, self._read.tune.test_texts, self._barred())

    def _barred(self) -> list[str]:
        """The texts that validators measure with where a config gives none: they are for measuring alone."""
        found: list[str] = []
        for purpose in ("scoring", "prompting"):
            try:
                texts = self._read.hooks.validation.provide_texts(purpose)
            except UnmeasurableError:
                continue
            found += [text for group in texts.values() for text in group]
        return found

    def _about(self, found: Opened, texts: Texts) -> dict[str, Any]:
        return {
            "config": {key: value for key, value in self._read.given.items() if key != "output_path"},
            "tune": self._read.searched,
            "texts": texts.digests(),
            "models": found.plan.digest or [[one.path, one.size, one.mtime_ns] for one in found.plan.inputs],
        }


def _untold(_: int, __: int, ___: float) -> None:
    """Nobody watches."""
