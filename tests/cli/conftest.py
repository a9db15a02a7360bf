"""A config file for the command line."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def path(models: SimpleNamespace, config: dict[str, Any]) -> Path:
    file: Path = models.folder / "merge.yaml"
    file.write_text(json.dumps(config))
    return file
