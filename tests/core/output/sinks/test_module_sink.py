"""Tensors put into a module that is there already."""

import re
from collections.abc import Callable

import pytest
import torch
from modelmerger import BlockRecord, Layout, ModelCompatibilityError, ModuleSink, OutputFile, OutputTensor, Placement
from modelmerger.output.sinks import module_sink

DONE = BlockRecord([])


def layout_of(**bytes_by_name: int) -> Layout:
    """Vectors of bytes, one after another."""
    placements, size = [], 0
    for name, count in bytes_by_name.items():
        placements.append(Placement(OutputTensor(name, "U8", (count,), count), size))
        size += count
    return Layout("raw", [OutputFile("all", size, (), placements)])


def zeros(**counts: int) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(count, dtype=torch.uint8) for name, count in counts.items()}


def test_a_tensor_is_replaced_when_its_last_block_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_sink, "BLOCK", 10)
    into = zeros(a=4, b=17, c=9)
    sink = ModuleSink(layout_of(a=4, b=17, c=9), into)
    content = memoryview(bytes(range(1, 31)))

    def make(block: int) -> dict[str, list[int]]:
        sink.write(0, 0, content[block * 10 : block * 10 + 10], block * 10)
        sink.record(0, block, DONE)
        return {name: tensor.tolist() for name, tensor in into.items()}

    assert make(1) == {"a": [0] * 4, "b": [0] * 17, "c": [0] * 9}
    assert make(0) == {"a": [1, 2, 3, 4], "b": [0] * 17, "c": [0] * 9}
    into["a"].zero_()
    assert make(0)["a"] == [0] * 4  # a unit that is done again would make it of what was put there
    assert make(2) == {"a": [0] * 4, "b": list(range(5, 22)), "c": list(range(22, 31))}
    assert sorted(sink.records) == [(0, 0), (0, 1), (0, 2)]


def test_parameters_keep_memory_gradients_and_layout() -> None:
    module = torch.nn.Linear(2, 3, bias=False)
    module.weight = torch.nn.Parameter(torch.zeros(2, 3).t())
    module.weight.grad = torch.ones(3, 2)
    kept = module.weight
    file = OutputFile("all", 24, (), [Placement(OutputTensor("weight", "F32", (3, 2), 24), 0)])
    sink = ModuleSink(Layout("raw", [file]), module)

    sink.write(0, 0, memoryview(torch.arange(6.0).numpy().tobytes()), 0)
    sink.record(0, 0, DONE)

    assert module.weight is kept
    assert kept.requires_grad
    assert kept.stride() == (1, 3)
    assert kept.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert torch.equal(module.weight.grad, torch.ones(3, 2))


def shared() -> dict[str, torch.Tensor]:
    vector = torch.zeros(3, dtype=torch.uint8)
    return {"a": vector, "b": vector}


@pytest.mark.parametrize(
    ("into", "words"),
    [
        (lambda: zeros(a=2), "out: b: is merged, and 'out' has no tensor of this name."),
        (lambda: zeros(a=2, b=4), "out: b: has shape [4] here, and the merged one has [3]."),
        (lambda: zeros(a=2) | {"b": torch.zeros(3)}, "out: b: is torch.float32 here, and U8 is merged."),
        (lambda: zeros(a=2) | {"b": torch.zeros(3, device="meta")}, "out: b: is on the meta device"),
        (lambda: zeros(a=2) | {"b": torch.zeros(3).to_sparse()}, "out: b: is not a plain tensor (Tensor)"),
        (lambda: zeros(a=2, b=3, c=1), "out: c: is not merged, so it would stay as it is."),
        (lambda: (v := zeros(v=4)["v"]) is None or {"a": v[:2], "b": v[1:]}, "out: b: shares memory with 'a'"),
    ],
)
def test_what_cannot_be_written_into_is_said(into: Callable[[], dict[str, torch.Tensor]], words: str) -> None:
    with pytest.raises(ModelCompatibilityError, match=re.escape(words)):
        ModuleSink(layout_of(a=2, b=3), into())


def test_a_tied_tensor_needs_no_number_of_its_own() -> None:
    into = shared()
    sink = ModuleSink(layout_of(a=3), into)
    sink.write(0, 0, memoryview(b"\1\2\3"), 0)
    sink.record(0, 0, DONE)
    assert into["b"].tolist() == [1, 2, 3]
