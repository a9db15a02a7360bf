from pathlib import Path

import pytest


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where the output of a test goes, if it gets so far."""
    return tmp_path / "merged"
