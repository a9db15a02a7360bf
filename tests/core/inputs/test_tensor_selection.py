"""A selection of tensors reads what it selects, and names what it is made of."""

import torch
from modelmerger import TensorSelection
from modelmerger.testing import MemoryCheckpoint, merge_in_memory


def pair() -> list[MemoryCheckpoint]:
    numbers = torch.arange(12, dtype=torch.bfloat16)
    return [MemoryCheckpoint("a", {"x": numbers, "y": -numbers.view(3, 4)}), MemoryCheckpoint("b", {"x": numbers + 1})]


def test_elements_are_read_where_they_lie() -> None:
    first, second = pair()
    selection = TensorSelection("s", {"one": (first, "y"), "two": (second, "x")})
    assert (selection.tensors["one"].shape, selection.tensors["two"].dtype) == ((3, 4), "BF16")
    buffer = bytearray(6)
    selection.read("one", 5, 8, memoryview(buffer))
    assert torch.frombuffer(buffer, dtype=torch.bfloat16).tolist() == [-5.0, -6.0, -7.0]
    assert (first.reads, second.reads) == ([("y", 5, 8)], [])
    assert selection.made_of("two") == ((second, "x"),)


def test_a_selection_can_be_merged_like_any_model() -> None:
    first, _ = pair()
    mine = TensorSelection("mine", {"x": (first, "y")})
    other = TensorSelection("other", {"x": (TensorSelection("inner", {"z": (first, "y")}), "z")})
    merged = merge_in_memory("weighted", [mine, other], weights=[1, 1])
    assert torch.equal(merged["x"], -torch.arange(12, dtype=torch.bfloat16).view(3, 4))


def test_its_digest_tells_which_tensor_is_which() -> None:
    first, second = pair()
    chosen = [{"one": (first, "x")}, {"one": (first, "y")}, {"one": (second, "x")}, {"two": (first, "x")}]
    digests = [TensorSelection("s", selected).content for selected in chosen]
    assert len(set(digests)) == 4
    assert TensorSelection("another name", chosen[0]).content == digests[0]
