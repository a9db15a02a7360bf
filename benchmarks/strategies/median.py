"""A strategy that holds more than its inputs: the median of each number, from a sorted copy of all models."""

import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, None), weights=False)


@hookimpl
def merge_tensor(tensors):
    return torch.stack(tensors).sort(dim=0).values.median(dim=0).values
