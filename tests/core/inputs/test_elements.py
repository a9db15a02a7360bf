"""Elements come as a vector of the stored dtype, and nothing else is read."""

import pytest
import torch
from modelmerger import read_elements
from modelmerger.testing import MemoryCheckpoint


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.int32, torch.bool])
def test_elements_have_their_bits_and_memory_of_their_own(dtype: torch.dtype) -> None:
    numbers = torch.arange(-3, 9).view(3, 4).to(dtype)
    model = MemoryCheckpoint("m", {"w": numbers})
    found = read_elements(model, "w", 2, 7)
    assert found.dtype == dtype
    assert torch.equal(found.view(torch.uint8), numbers.view(-1)[2:7].view(torch.uint8))
    assert model.reads == [("w", 2, 7)]
    found.zero_()
    assert torch.equal(read_elements(model, "w", 2, 7).view(torch.uint8), numbers.view(-1)[2:7].view(torch.uint8))
