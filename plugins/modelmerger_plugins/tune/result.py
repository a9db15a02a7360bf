"""The files of a result: an ordinary config with the numbers that were found, and the evidence in comments."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelmerger import OutputError, Problem, dump_yaml, shown

from modelmerger_plugins.tune.report import TuneReport

CONFIG = "tuned.yaml"


def folder_of(output: str | os.PathLike[str]) -> Path:
    """The folder of a search, beside the merged model."""
    path = Path(os.path.abspath(os.path.expanduser(output)))
    return path.with_name(f"{path.name}.tune")


def rounded(config: Any) -> Any:
    """The config with numbers that are short to read, and as good: six digits behind the point."""
    if isinstance(config, Mapping):
        return {key: rounded(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [rounded(value) for value in config]
    return round(config, 6) if isinstance(config, float) else config


def config_text(report: TuneReport) -> str:
    """`tuned.yaml`: the config behind comments."""
    searched = f"{len(report.coordinates)} numbers by {report.method}, {len(report.trials) - 1} steps"
    lines = [
        "Found by `modelmerger tune`; merge it as any config.",
        f"{searched}, on {', '.join(f'{n} lines {shown(split)}' for split, n in report.lines.items())}.",
        f"Objective on these lines: {report.trials[0].value:.4f} at the start, {report.best.value:.4f} here.",
        *(f"Test, {shown(one.name)}: objective {one.value:.4f}" for one in report.judged),
        f"Verdict: {report.verdict}.",
        *(f"Note: {note}" for note in report.notes),
        f"Study {report.study}",
    ]
    return "".join(f"# {line}\n" for said in lines for line in said.splitlines()) + dump_yaml(report.config)


def write(folder: Path, name: str, content: bytes) -> None:
    """Writes a file and renames it over an older one, or over whatever has its name. Raises `OutputError`."""
    target, fresh = folder / name, folder / f".{name}.new"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)  # of a search that was killed, or a link
        try:
            with fresh.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(target)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        message = f"cannot be written: {error.strerror}. {'Free some space' if full else 'Check the disk'}"
        raise OutputError(Problem(f"{message}, then go on with --resume", str(target))) from error
