"""A distribution of plugins from its project to its end: built, installed beside ours, used, tested, uninstalled."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from modelmerger_plugins.new_plugin.project_files import PROJECT
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/strategy-plugin"
CONFIG = """\
strategy: {name}
base_model: ./base
models:
  - {{path: ./a, trust: 3.0}}
  - {{path: ./b}}
output_path: ./merged
options: {{disputed: 1.0}}
"""
IN_PYTHON = """
from modelmerger import MergeConfig, ModelMerger
config = MergeConfig.from_file("merge.yaml")
assert config.options == {"disputed": 1.0}
print(ModelMerger(config).plan().strategy)
"""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment, `venv`, that sees what is installed here, and where our wheel is installed over it."""
    place = tmp_path_factory.mktemp("plugin")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
    (site,) = (place / "venv/lib").glob("python*/site-packages")
    (site / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install(place, build(ROOT, place / "wheels"))
    return place


def build(project: Path, target: Path) -> Path:
    """The wheel of a project, in a folder of its own."""
    folder = target / project.name
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=project, env=clean(), check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(place: Path, wheel: Path) -> None:
    pip(place, "install", "--no-index", "--no-deps", "--no-compile", wheel)


def pip(place: Path, *arguments: object) -> None:
    command = [place / "venv/bin/python", "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*command, *map(str, arguments)], env=clean(), check=True, capture_output=True)


def clean() -> dict[str, str]:
    """Without what makes this checkout importable."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a program of the environment, in it."""
    monkeypatch.chdir(place)

    def run(program: str, *arguments: str, **how: Any) -> "subprocess.CompletedProcess[str]":
        command = [str(place / "venv/bin" / program), *arguments]
        return subprocess.run(command, env=clean(), capture_output=True, text=True, timeout=300, check=False, **how)

    return run


def models(place: Path) -> None:
    for name, numbers in {"base": [1.0, 1, 1], "a": [2.0, 2, 1], "b": [5.0, -1, 2]}.items():
        (place / name).mkdir(exist_ok=True)
        save_file({"w": torch.tensor(numbers)}, place / name / "model.safetensors")


def test_the_project_that_is_written_is_the_example() -> None:
    """In a wheel, it is a copy."""
    files = [path.relative_to(EXAMPLE) for path in EXAMPLE.rglob("*.*") if "__pycache__" not in path.parts]
    assert len(files) > 8
    assert all((PROJECT / path).read_bytes() == (EXAMPLE / path).read_bytes() for path in files)


def test_built_installed_used_and_uninstalled(place: Path, run: Run) -> None:
    project = shutil.copytree(EXAMPLE, place / "strategy-plugin", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    install(place, build(project, place / "wheels"))
    models(place)
    (place / "merge.yaml").write_text(CONFIG.format(name="agreeing_merge"))

    found = run(
        "python", "-c", "import modelmerger, agreeing_merge; print(modelmerger.__file__, agreeing_merge.__file__)"
    )
    assert all(Path(file).is_relative_to(place / "venv") for file in found.stdout.split())
    listed = json.loads(run("modelmerger", "plugins", "--json").stdout)
    ours = {(one["kind"], one["name"], one["version"]) for one in listed if one["distribution"] == "agreeing-merge"}
    assert ours == {
        ("strategy", "agreeing_merge", "0.1.0"),
        ("validator", "agreeing_merge_repeats", "0.1.0"),
        ("plugin", "agreeing_merge_note", "0.1.0"),
    }
    done = run("modelmerger", "merge", "merge.yaml")
    assert (done.returncode, "warning" in done.stderr) == (0, False), done.stderr
    assert load_file(place / "merged/model.safetensors")["w"].tolist() == [2.75, 1.25, 1.25]
    assert json.loads((place / "merged/agreeing_merge.json").read_bytes()) == {"a": {"trust": 3.0}, "b": {"trust": 1.0}}
    assert run("python", "-c", IN_PYTHON).stdout == "agreeing_merge\n"
    mistaken = run("modelmerger", "check", "merge.yaml", "--set", "models[1].trust=0", "--set", "options.disputed=2")
    assert mistaken.stderr.splitlines() == [
        "error: models[1].trust: must be in (0, 1000], got 0.0",
        "error: options.disputed: must be in [0, 1], got 2.0",
    ]

    pip(place, "uninstall", "--yes", "agreeing-merge")
    gone = run("modelmerger", "check", "merge.yaml")
    assert gone.returncode == 2
    assert "no strategy is named 'agreeing_merge'" in gone.stderr


def test_the_tests_of_a_new_plugin_pass_untouched(place: Path, run: Run) -> None:
    made = run("modelmerger", "new-plugin", "merge-by-halves")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.startswith("wrote merge-by-halves, with the strategy merge_by_halves. Go on with:\n")
    (site,) = (place / "venv/lib").glob("python*/site-packages")
    with zipfile.ZipFile(build(place / "merge-by-halves", place / "wheels")) as wheel:
        wheel.extractall(site)  # as pip does, which the test before this one has seen
    tested = run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "merge-by-halves")
    assert tested.returncode == 0, tested.stdout
    assert "skipped" not in tested.stdout
