from types import SimpleNamespace
from typing import Any

import torch
from modelmerger import MergeConfig, merge
from safetensors.torch import load_file


def test_a_merge_publishes_the_weighted_average(models: SimpleNamespace, config: dict[str, Any]) -> None:
    report = merge(MergeConfig(**config))

    merged = load_file(models.output / "model.safetensors")
    assert report.tensors == len(merged) == len(models.tensors["a"])
    for name, tensor in merged.items():
        exact = 0.6 * models.tensors["a"][name].double() + 0.4 * models.tensors["b"][name].double()
        torch.testing.assert_close(tensor.double(), exact, rtol=2**-8, atol=0)
