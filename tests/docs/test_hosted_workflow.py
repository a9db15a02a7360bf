"""The workflow of the repository host runs what `.ci/run` runs, on every Python that the package is for."""

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
MATRIX = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]


def targets_of(text: str) -> set[str]:
    return set(re.findall(r"\bmake ([a-z-]+)", text))


def test_it_makes_what_ci_makes() -> None:
    here = set().union(*(targets_of(step.get("run", "")) for step in STEPS))
    here |= {*MATRIX["target"], *(one["target"] for one in MATRIX["include"])}
    assert here == targets_of((ROOT / ".ci/run").read_text())
    assert here <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_it_installs_what_ci_installs() -> None:
    (wanted,) = re.findall(r"for program in (.*); do", (ROOT / ".ci/run").read_text())
    installed = " ".join(step.get("run", "") for step in STEPS)
    assert [name for name in wanted.split() if name != "chromium" and not re.search(rf"\b{name}\b", installed)] == []


def test_it_tries_every_python_and_the_oldest_with_the_oldest_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert MATRIX["python"] == declared
    assert project["requires-python"] == f">={declared[0]}"
    targets = {(one["python"], one["target"]) for one in MATRIX["include"]}
    assert {(declared[0], "test-oldest"), (declared[-1], "test-newest")} <= targets


def test_each_action_is_of_one_major_version() -> None:
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used
    assert [name for name in used if not re.fullmatch(r"actions/[a-z-]+@v\d+", name)] == []
    assert WORKFLOW["permissions"] == {"contents": "read"}
