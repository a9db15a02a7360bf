"""`Checkpoint.read` fills whatever has memory to be filled, and says what cannot be."""

import array
import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modelmerger import Checkpoint, CheckpointView, ConfigError, InputError, MergeConfig, ModelMerger, TensorInfo
from safetensors.torch import save_file

VALUES = torch.arange(1.0, 7.0).view(2, 3)
BYTES = VALUES.numpy().tobytes()


@pytest.fixture(params=["file", "live", "merged", "merge"])
def checkpoint(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    save_file({"w": VALUES, "none": torch.empty(0, 3)}, tmp_path / "a.safetensors")
    state = {"w": VALUES, "none": torch.empty(0, 3)}
    path: Any = state if request.param == "live" else str(tmp_path / "a.safetensors")
    model: dict[str, Any] = {"path": path, "name": "a"}
    if request.param == "merge":
        model = {"merge": {"strategy": "weighted", "models": [model]}, "name": "a"}
    merger = ModelMerger({"strategy": "weighted", "models": [model]})
    yield merger.load_models()["a"] if request.param != "merged" else merger.merge()


BUFFERS = {
    "bytearray": lambda: bytearray(24),
    "memoryview": lambda: memoryview(bytearray(24)),
    "memoryview of floats": lambda: memoryview(bytearray(24)).cast("f"),
    "array of bytes": lambda: array.array("B", bytes(24)),
    "array of floats": lambda: array.array("f", bytes(24)),
    "numpy bytes": lambda: np.zeros(24, np.uint8),
    "numpy floats": lambda: np.zeros(6, np.float32),
    "numpy matrix": lambda: np.zeros((2, 3), np.float32),
    "numpy halves": lambda: np.zeros(12, np.float16),
    "torch": lambda: torch.zeros(2, 3).numpy(),
    "ctypes": ctypes.c_ubyte * 24,
}


@pytest.mark.parametrize("make", BUFFERS.values(), ids=BUFFERS)
def test_any_buffer_is_filled(checkpoint: Checkpoint, make: Any) -> None:
    buffer = make()

    checkpoint.read("w", 0, 6, buffer)

    assert bytes(buffer) == BYTES


@pytest.mark.parametrize("make", [lambda: bytearray(b"x" * 40), lambda: np.full(10, 120, np.uint8)])
def test_of_a_larger_one_the_beginning(checkpoint: Checkpoint, make: Any) -> None:
    buffer = make()

    checkpoint.read("w", 4, 6, buffer)

    assert bytes(buffer) == BYTES[16:] + b"x" * (len(buffer) - 8)


def read_only() -> Any:
    found = np.zeros(24, np.uint8)
    found.flags.writeable = False
    return found


REFUSED = {
    "bytes": (lambda: bytes(24), "read-only"),
    "read-only array": (read_only, "read-only"),
    "read-only memoryview": (lambda: memoryview(bytearray(24)).toreadonly(), "read-only"),
    "with gaps": (lambda: np.zeros(48, np.uint8)[::2], "is not contiguous"),
    "backwards": (lambda: memoryview(bytearray(24))[::-1], "is not contiguous"),
    "transposed": (lambda: np.zeros((2, 3), np.float32).T, "is not contiguous"),
    "too small": (lambda: bytearray(23), "has 23 bytes, and 24 are to be read"),
    "empty": (bytearray, "has 0 bytes, and 24 are to be read"),
    "a list": (lambda: [0] * 24, "must be a bytearray, an array or a memoryview, got list"),
    "a tensor": (lambda: torch.zeros(6), "must be a bytearray, an array or a memoryview, got Tensor"),
    "none": (lambda: None, "got NoneType"),
    "other order": (lambda: np.zeros(6, ">f4"), "has elements of the form '>f'"),
}


@pytest.mark.parametrize(("make", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_filled_is_a_sentence(checkpoint: Checkpoint, make: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        checkpoint.read("w", 0, 6, make())


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (-1, 2), (3, 2), (7, 7)])
def test_elements_that_are_not_there_are_a_sentence(checkpoint: Checkpoint, start: int, stop: int) -> None:
    with pytest.raises(ConfigError, match="has 6 elements"):
        checkpoint.read("w", start, stop, bytearray(100))


def test_a_tensor_that_is_not_there_is_a_sentence(checkpoint: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="is no tensor of this model"):
        checkpoint.read("x", 0, 1, bytearray(4))


class LastRow(CheckpointView):
    """Of each matrix the last row alone, in another dtype than it is stored in."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(checkpoint)
        self.tensors = {"w": TensorInfo("F64", (3,))}

    @property
    def content(self) -> str:
        return "the last row"

    def read(self, tensor: str, start: int, stop: int, buffer: memoryview) -> None:
        stored = memoryview(bytearray(4 * (stop - start)))
        super().read(tensor, 3 + start, 3 + stop, stored)
        buffer[:] = np.frombuffer(stored, "f4").astype("f8").tobytes()


def test_a_view_asks_for_what_its_checkpoint_has(checkpoint: Checkpoint) -> None:
    found = np.zeros(3)

    LastRow(checkpoint).read("w", 0, 3, found)

    assert found.tolist() == [4, 5, 6]
    with pytest.raises(InputError, match="a view asks for elements 0 to 7 of 6"):
        LastRow(checkpoint).read("w", 0, 7, found)


def test_nothing_is_read_into_nothing(checkpoint: Checkpoint) -> None:
    for buffer in (bytearray(), np.zeros((0, 3), np.float32)):
        checkpoint.read("none", 0, 0, buffer)
        checkpoint.read("w", 2, 2, buffer)


def test_what_is_opened_is_shown_in_a_line(tmp_path: Path) -> None:
    tensors = {f"model.layers.{i}.w": torch.ones(4) for i in range(500)}
    save_file(tensors, tmp_path / "a.safetensors")
    config = MergeConfig(
        strategy="weighted", models=[{"path": str(tmp_path / "a.safetensors"), "name": "a"}, {"path": tensors}]
    )
    merger = ModelMerger(config)

    (opened, _) = merger.load_models().values()

    assert repr(opened) == f"<FileCheckpoint 'a': 500 tensors, 8,000 bytes, from {tmp_path}/a.safetensors>"
    objects = [merger.load_models(), merger.plan(), merger.plan().layout, merger.merge(), config, merger]
    objects += [merger.merge_report, config.resolved()[0]]
    assert {type(shown).__name__: len(repr(shown)) for shown in objects if len(repr(shown)) > 2500} == {}
