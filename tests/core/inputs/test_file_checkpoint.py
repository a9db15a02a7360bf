"""Elements of a tensor in a file, against numpy's view of the same bytes."""

import os
from pathlib import Path

import numpy as np
import pytest
from modelmerger import ConfigError, LoadContext, TensorInfo
from modelmerger.inputs.file_checkpoint import FileCheckpoint, StoredTensor

FIRST = np.arange(20, dtype="<f4").reshape(4, 5)
SECOND = np.arange(100, 107, dtype="<i2")


@pytest.fixture
def checkpoint(tmp_path: Path) -> FileCheckpoint:
    path = tmp_path / "weights"
    path.write_bytes(b"header" + FIRST.tobytes() + SECOND.tobytes())
    context = LoadContext()
    file = context.open_file(path)
    stored = {
        "first": StoredTensor(file, 6, TensorInfo("F32", (4, 5))),
        "second": StoredTensor(file, 6 + FIRST.nbytes, TensorInfo("I16", (7,))),
    }
    return FileCheckpoint("model", stored, context.files, (file,))


@pytest.mark.parametrize(
    ("tensor", "start", "stop"), [("first", 0, 20), ("first", 3, 11), ("second", 0, 7), ("second", 6, 7)]
)
def test_elements_are_read_where_they_lie(checkpoint: FileCheckpoint, tensor: str, start: int, stop: int) -> None:
    whole = {"first": FIRST, "second": SECOND}[tensor].reshape(-1)
    found = np.full(20, -1, whole.dtype)

    checkpoint.read(tensor, start, stop, memoryview(found.view("u1")))

    assert found[: stop - start].tolist() == whole[start:stop].tolist()
    assert (found[stop - start :] == -1).all()
    checkpoint.reader.close()


def test_several_ranges_are_laid_end_to_end(checkpoint: FileCheckpoint) -> None:
    found = np.full(9, -1, "<f4")

    checkpoint.read_ranges("first", [(1, 3), (7, 7), (12, 18)], memoryview(found.view("u1")))

    assert found.tolist() == [*FIRST.reshape(-1)[[1, 2, 12, 13, 14, 15, 16, 17]].tolist(), -1]
    with pytest.raises(ConfigError, match="has 20 elements, and elements 19 to 21 are asked for"):
        checkpoint.read_ranges("first", [(0, 1), (19, 21)], memoryview(found.view("u1")))
    checkpoint.reader.close()


def test_a_class_that_reads_otherwise_does_so_for_ranges_too(checkpoint: FileCheckpoint) -> None:
    class Negative(FileCheckpoint):
        def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
            super().read(tensor, start, stop, buffer)
            np.negative(np.frombuffer(buffer, "<i2"), out=np.frombuffer(buffer, "<i2"))

    found = np.zeros(3, "<i2")
    other = Negative("model", checkpoint.stored, checkpoint.reader, checkpoint.files)

    other.read_ranges("second", [(0, 1), (5, 7)], memoryview(found.view("u1")))

    assert found.tolist() == [-100, -105, -106]
    checkpoint.reader.close()


def test_what_will_be_read_is_told_by_its_bytes(checkpoint: FileCheckpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "preadv", lambda *_: 0)  # nothing is in memory
    monkeypatch.setattr(os, "posix_fadvise", lambda _, offset, length, advice: told.append((offset, length)))

    checkpoint.prefetch("second", 2, 5)

    assert told == [(6 + FIRST.nbytes + 4, 6)]
    checkpoint.reader.close()


def test_the_tensors_are_those_that_are_stored(checkpoint: FileCheckpoint) -> None:
    assert checkpoint.tensors == {"first": TensorInfo("F32", (4, 5)), "second": TensorInfo("I16", (7,))}
    assert (checkpoint.aliases, checkpoint.base, checkpoint.donor.directory) == ({}, None, None)


def test_it_says_that_it_is_no_model(checkpoint: FileCheckpoint) -> None:
    with pytest.raises(AttributeError, match=r"a checkpoint has no 'device': .* no config\.json says"):
        _ = checkpoint.device
    assert not hasattr(checkpoint, "generate")
