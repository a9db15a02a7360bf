"""`MergeTuner`: from a config with numbers to be found to one with numbers, the evidence for them, and the model."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve
from modelmerger import ConfigError, MergeConfig, MergeReport, Problem, UnmeasurableError, shown
from modelmerger import merge as merge_config

from modelmerger_plugins.tune.asked import Asked, Objective, Preparing, Progress
from modelmerger_plugins.tune.opened import SECTION, Opened, Read, opened, read
from modelmerger_plugins.tune.result import CONFIG, config_text, folder_of, write
from modelmerger_plugins.tune.study import FILE, Study
from modelmerger_plugins.tune.texts import Texts, texts_of

if TYPE_CHECKING:
    from modelmerger_plugins.tune.outlook import TunePlan
    from modelmerger_plugins.tune.report import TuneReport

log = logging.getLogger("modelmerger")


class MergeTuner:
    """Finds the numbers that a config leaves open.

    config: a mapping with its keys, or the path of its file, with `{tune: [low, high]}` in place of numbers and a
    section `tune`. objective: called with the merged model and its tokenizer for each vector of numbers that is tried;
    what it returns is made small: a number, or several ones, which are then objectives of their own. Raises
    `ConfigError`.

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
        jobs: int = 1,
        choose: int | None = None,
        progress: Progress | None = None,
        preparing: Preparing | None = None,
    ) -> "TuneReport":
        """Searches, and writes study, `tuned.yaml` and page into `OUTPUT.tune`.

        output: in place of the config's output_path. resume: goes on with the study of a search that was ended. jobs:
        how many vectors are measured at a time where the search only tries them, each in a process of its own. choose:
        the number of a step whose numbers are taken in place of the best ones; it goes on with the study. progress:
        called with steps done, steps in all, and the objective. preparing: called before, while a strategy such as
        tsv_m makes what it adds up, with tensors done and tensors in all. A KeyboardInterrupt during the search ends it
        with the best numbers so far. Raises `MergeError`.
        """
        from modelmerger_plugins.tune.work import searched

        folder = self._folder(output)
        texts = self._texts()
        found = opened(self._read, texts.fewest)
        study = Study(folder, self._about(found, texts), resume=resume or choose is not None)
        try:
            asked = Asked(self._objective, progress or _untold, jobs, choose, preparing)
            report = searched(found, texts, study, asked)
            tuned = {"study": report.study, "texts": dict(report.texts)}
            config = self._read.config({**report.config, SECTION: tuned})
            if output is not None or "output_path" not in config:
                config["output_path"] = os.fspath(output) if output is not None else str(self._output(output))
            self.report = evolve(report, config=config)
            write(folder, CONFIG, config_text(self.report).encode())
            self._write_page(folder)
        finally:
            study.close()
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

    def left(self, output: str | os.PathLike[str] | None = None) -> str:
        """What a search that was ended has left and how to go on, in a sentence; empty where it has left nothing."""
        folder = self._folder(output)
        if self.report is not None:
            return f"The numbers are in {shown(str(folder / CONFIG))}; merge that."
        if (folder / FILE).exists():
            return f"What was measured is in {shown(str(folder / FILE))}; run the same command with --resume to go on."
        return ""

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
