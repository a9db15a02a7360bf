"""Tensors that a sink takes apart from the bytes of files."""

import numpy as np
import pytest
import torch
from modelmerger import Layout, MemorySink, OutputFile, OutputTensor, Placement

TENSORS = {
    "a": torch.arange(6, dtype=torch.int16).view(2, 3),
    "none": torch.empty(0, 3),
    "b": torch.tensor(2.5),
    "c": torch.tensor([True, False, True]),
}
FIXED = b"a header"


def layout_of(tensors: dict[str, torch.Tensor]) -> tuple[Layout, bytes]:
    """One file: eight bytes that are of no tensor, then the tensors one after another; and what is in it."""
    names = {torch.int16: "I16", torch.float32: "F32", torch.bool: "BOOL"}
    placements, content = [], FIXED
    for name, tensor in tensors.items():
        told = OutputTensor(name, names[tensor.dtype], tuple(tensor.shape), tensor.nbytes)
        placements.append(Placement(told, len(content)))
        content += tensor.numpy().tobytes()
    return Layout("raw", [OutputFile("all", len(content), ((0, FIXED),), placements)]), content


@pytest.mark.parametrize("window", [1, 3, 7, 1000])
@pytest.mark.parametrize("backwards", [False, True])
def test_whatever_the_windows_and_their_order_the_tensors_are_there(window: int, backwards: bool) -> None:
    layout, content = layout_of(TENSORS)
    sink = MemorySink(layout)
    handle = sink.open_file(0)

    offsets = range(0, len(content), window)
    for offset in reversed(offsets) if backwards else offsets:
        sink.write(handle, 0, memoryview(content[offset : offset + window]), offset)

    assert list(sink.tensors) == list(TENSORS)
    for name, tensor in TENSORS.items():
        found = sink.tensors[name]
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        np.testing.assert_array_equal(found.numpy(), tensor.numpy())


def test_each_tensor_has_memory_of_its_own() -> None:
    """Whoever keeps or saves one of them keeps that one alone."""
    layout, _ = layout_of(TENSORS)
    sizes = {name: tensor.untyped_storage().nbytes() for name, tensor in MemorySink(layout).tensors.items()}
    assert sizes == {name: tensor.nbytes for name, tensor in TENSORS.items()}


def test_a_dtype_that_torch_lacks_is_said() -> None:
    layout = Layout("raw", [OutputFile("all", 2, (), [Placement(OutputTensor("q", "F4", (4,), 2), 0)])])
    with pytest.raises(ValueError, match="no dtype for F4"):
        MemorySink(layout)
