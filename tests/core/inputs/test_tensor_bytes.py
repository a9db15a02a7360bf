"""Where tensors lie in memory, against views of one buffer whose places are known."""

import torch
from modelmerger.inputs.tensor_bytes import MemoryMap, bytes_of, extent, where

BUFFER = torch.zeros(100, dtype=torch.int16)


def test_bytes_of_a_tensor_are_its_memory() -> None:
    tensor = torch.zeros(3, dtype=torch.int16)

    bytes_of(tensor)[2:4] = b"\x01\x02"

    assert tensor.tolist() == [0, 0x0201, 0]


def test_bytes_of_a_tensor_span_all_of_its_elements() -> None:
    start = BUFFER.data_ptr()
    assert extent(BUFFER[10:20]) == ("cpu", start + 20, start + 40)
    assert extent(BUFFER[:60].view(6, 10)[:, 3]) == ("cpu", start + 6, start + 6 + 2 * 51)  # six numbers, ten apart
    assert extent(BUFFER[7].expand(5)) == ("cpu", start + 14, start + 16)
    assert extent(BUFFER[5]) == ("cpu", start + 10, start + 12)


def test_tensors_are_one_if_they_are_the_same_numbers_in_the_same_memory() -> None:
    assert where(BUFFER[:4]) == where(torch.nn.Parameter(BUFFER[:4], requires_grad=False))
    others = [BUFFER[:5], BUFFER[1:5], BUFFER[:4].view(2, 2), BUFFER[:4].view(torch.bfloat16), BUFFER[:4].clone()]
    assert where(BUFFER[:4]) not in [where(other) for other in others]
    assert [where(nothing) for nothing in (7, BUFFER[:0], torch.ones(2, device="meta"))] == [None] * 3


def test_a_map_tells_who_shares_memory() -> None:
    parts = {"b": BUFFER[10:20], "a": BUFFER[0:10], "c": BUFFER[30:40], "none": BUFFER[15:15]}
    memory = MemoryMap(parts)
    assert memory.overlaps() == []
    asked = {
        (8, 12): ["a", "b"],
        (10, 11): ["b"],
        (20, 30): [],
        (25, 31): ["c"],
        (0, 100): ["a", "b", "c"],
        (40, 50): [],
    }
    assert {span: memory.sharing(BUFFER[slice(*span)]) for span in asked} == asked
    assert memory.sharing(BUFFER[5:5]) == []
    assert MemoryMap({**parts, "d": BUFFER[19:31]}).overlaps() == [("b", "d"), ("d", "c")]
