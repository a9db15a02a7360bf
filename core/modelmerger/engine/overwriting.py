"""A merge that writes into tensors of its own models: what is made of a tensor, and nothing else, may replace it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from modelmerger.engine.merge import Merge
from modelmerger.inputs.tensor_bytes import MemoryMap, where
from modelmerger.values.errors import ModelCompatibilityError, Problem

if TYPE_CHECKING:
    from torch import Tensor


def check_overwriting(merge: Merge, sources: "Sequence[Mapping[str, Tensor]]", targets: "Mapping[str, Tensor]") -> None:
    """Raises `ModelCompatibilityError` where a tensor would be read after it was overwritten.

    sources: the tensors of each checkpoint by name, as far as they are in memory. targets: where each tensor of the
    plan is put; no two of them share memory.
    """
    written = {tensor.name: targets[tensor.name] for tensor in merge.plan.tensors}
    memory = MemoryMap(written)
    problems = []
    for tensor in merge.plan.tensors:
        for i in tensor.inputs:
            source = sources[i].get(tensor.name_in(i))
            if source is None or where(source) == where(written[tensor.name]):
                continue
            if shared := memory.sharing(source):
                message = f"shares memory with '{shared[0]}' of 'out', so it could change before it is read. Clone it."
                problems.append(Problem(message, merge.checkpoints[i].name, tensor.name))
    if problems:
        raise ModelCompatibilityError(*problems)
