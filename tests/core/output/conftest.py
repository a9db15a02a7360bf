from pathlib import Path

import pytest


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the output of a test goes, if it gets so far."""
    return tmp_path / "merged"


@pytest.fixture(autouse=True)
def whole(power_may_fail: None) -> None:
    """Every step is the real one."""
