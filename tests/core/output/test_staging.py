import os
from pathlib import Path

import pytest
from modelmerger import OutputError
from modelmerger.output.staging import Staging

from tests.core.output.staged import LAYOUT, stage


def test_nothing_stays_open(target: Path) -> None:
    before = os.listdir("/proc/self/fd")
    stage(target, [0])
    with Staging(target, "plan", LAYOUT) as staging, pytest.raises(OutputError):
        staging.write_document("weights/LICENSE", [b"in a folder that is a file"])
    with pytest.raises(OutputError), Staging(target.parent / "no" / "such" / "merged", "plan", LAYOUT):
        pass

    assert os.listdir("/proc/self/fd") == before


def test_short_writes_are_continued(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, content, offset: pwrite(fd, content[: 1 << 20], offset))
    stage(target, [0, 1])
    monkeypatch.undo()

    with Staging(target, "plan", LAYOUT) as staging:
        assert len(staging.records) == 2
