"""`make test-oldest` runs with the lowest versions that pyproject.toml allows."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def test_the_oldest_constraints_are_the_lower_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    bounds = {}
    for wanted in map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["test"]]):
        (bound,) = (one.version for one in wanted.specifier if one.operator == ">=")
        bounds[canonicalize_name(wanted.name)] = Version(bound)
    assert {name: Version(pinned[name]) for name in bounds} == bounds
