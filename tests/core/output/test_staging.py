import os
from pathlib import Path

import pytest
from modelmerger import OutputError
from modelmerger.inputs.direct.aligned import aligned_memory
from modelmerger.output.staging import Staging
from modelmerger.values.layout import BLOCK

from tests.core.output.staged import LAYOUT, stage


def test_nothing_stays_open(target: Path) -> None:
    before = os.listdir("/proc/self/fd")
    stage(target, [0])
    with Staging(target, "plan", LAYOUT) as staging, pytest.raises(OutputError):
        staging.write_document("weights/LICENSE", [b"in a folder that is a file"])
    with pytest.raises(OutputError), Staging(target.parent / "no" / "such" / "merged", "plan", LAYOUT):
        pass

    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(("direct", "most"), [(False, 1 << 18), (True, BLOCK)])
def test_the_page_cache_is_given_small_pieces_and_a_device_whole_blocks(
    target: Path, monkeypatch: pytest.MonkeyPatch, direct: bool, most: int
) -> None:
    """For larger ones the system compacts memory."""
    pwrite, written = os.pwrite, []

    def noted(descriptor: int, content: memoryview, offset: int) -> int:
        written.append(len(content))
        return pwrite(descriptor, content, offset)

    monkeypatch.setattr(os, "pwrite", noted)
    with Staging(target, "plan", LAYOUT, direct=direct) as staging:
        handle = staging.open_file(0)
        staging.write(handle, 0, aligned_memory(BLOCK), 0)
        staging.close_file(handle, 0)
        if direct and not staging._direct:
            pytest.skip("this file system has no O_DIRECT")
    assert set(written) == {most}


def test_short_writes_are_continued(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, content, offset: pwrite(fd, content[: 1 << 16], offset))
    stage(target, [0, 1])
    monkeypatch.undo()

    with Staging(target, "plan", LAYOUT) as staging:
        assert len(staging.records) == 2
