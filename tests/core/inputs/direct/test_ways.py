"""Which way bytes go: decided from sizes and memory alone, and from what the page cache holds."""

import os
from pathlib import Path

import pytest
from modelmerger.inputs.direct.ways import way_of, writes_past_cache
from modelmerger.values.file_identity import FileIdentity, identify
from modelmerger.values.options.core import Io

GB = 10**9


@pytest.mark.parametrize(
    ("io", "read", "written", "available", "past"),
    [
        ("auto", 30 * GB, 15 * GB, 24 * GB, True),
        ("auto", 30 * GB, 15 * GB, 45 * GB, False),  # all fits
        ("auto", 30 * GB, 15 * GB, 45 * GB - 1, True),
        ("auto", 30 * GB, 15 * GB, 0, False),  # the system does not say
        ("buffered", 30 * GB, 15 * GB, 1 * GB, False),
        ("direct", 1, 1, 24 * GB, True),
        ("direct", 1, 1, 0, True),
    ],
)
def test_output_goes_past_the_page_cache_where_all_does_not_fit(
    io: Io, read: int, written: int, available: int, past: bool
) -> None:
    assert writes_past_cache(io, read, written, available) is past


@pytest.fixture
def file(tmp_path: Path) -> FileIdentity:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    return identify(path, path.stat())


def test_a_file_just_written_is_in_the_page_cache(file: FileIdentity) -> None:
    assert way_of(file, "auto") in ("cached", "buffered")  # the latter where the file system does not say
    assert way_of(file, "buffered") == "buffered"


def test_a_file_that_was_dropped_comes_from_the_disk(file: FileIdentity) -> None:
    descriptor = os.open(file.path, os.O_RDONLY)
    os.fdatasync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    if way_of(file, "direct") == "buffered":
        pytest.skip("this file system has no O_DIRECT")
    assert way_of(file, "direct") == "direct"
    assert way_of(file, "auto") == "direct"


def test_without_direct_reads_it_is_the_page_cache(file: FileIdentity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelmerger.inputs.direct.open_file._DIRECT", 0)
    assert way_of(file, "direct") == "buffered"


def test_a_file_that_is_gone_is_no_reason_to_stop(file: FileIdentity) -> None:
    os.unlink(file.path)
    assert way_of(file, "auto") == "buffered"
