"""Standard streams that are closed, full, or of an encoding without Arabic letters."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

CLI = f"exec {sys.executable} -m modelmerger"


def run(command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs the command line through a shell, which redirects its streams."""
    return subprocess.run(
        ["bash", "-c", f"{CLI} {command}"],
        env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("streams", ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_failure(streams: str, path: Path) -> None:
    """A21"""
    done = run(f"plan --no-trial {path} {streams}")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_stream_lends_its_number_to_no_file(path: Path, models: SimpleNamespace) -> None:
    """A21"""
    assert run(f"merge {path} --output {models.folder}/closed >&- 2>&-").returncode == 0
    assert run(f"verify {models.folder}/closed").returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize(
    ("streams", "status", "said"),
    [
        (">/dev/full", 4, "error: standard output: No space left on device.\n"),
        (">/dev/full 2>/dev/full", 4, ""),
        ("--set options.epsilon=1 2>/dev/full", 2, ""),
    ],
)
def test_a_full_stream_is_an_output_that_failed(streams: str, status: int, said: str, path: Path) -> None:
    """A21"""
    done = run(f"plan --no-trial {path} {streams}")
    assert (done.returncode, done.stderr) == (status, said)


def test_a_stream_that_a_plugin_closes_is_an_output_that_failed(path: Path, models: SimpleNamespace) -> None:
    """A21: the merge is published by then."""
    plugin = models.folder / "closing.py"
    plugin.write_text(
        "import sys\nfrom modelmerger import hookimpl\n\n@hookimpl\ndef observe_slice():\n    sys.stdout.close()\n"
    )
    done = run(f"merge {path} --output {models.folder}/told --plugin {plugin}")
    assert done.returncode == 4, done.stderr
    assert done.stderr.splitlines()[-1] == ("error: standard output: was closed, so what was to be printed is lost.")
    assert run(f"verify {models.folder}/told").returncode == 0


def test_notes_that_nobody_can_read_are_no_failure(path: Path) -> None:
    """A21"""
    done = run(f"check {path} 2>/dev/full")
    assert (done.returncode, done.stdout) == (0, "the models can be merged\n")


def test_letters_that_the_encoding_lacks_are_escaped(models: SimpleNamespace, config: dict[str, Any]) -> None:
    """A21"""
    config["models"][0]["name"] = "مصري"
    file = models.folder / "دمج.json"
    file.write_text(json.dumps(config))
    done = run(f"plan --no-trial {file}", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert done.returncode == 0
    assert r"\u0645\u0635\u0631\u064a" in done.stdout
    done = run(f"check {file} --json --set output_path={models.folder}/خرج", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, json.loads(done.stdout)["compatible"]) == (0, True)
