"""A merge that writes into tensors of its own models: what is made of a tensor, and nothing else, may replace it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from modelmerger.inputs.tensor_bytes import MemoryMap, where
from modelmerger.values.errors import ModelCompatibilityError, Problem
from modelmerger.values.plan import MergePlan

if TYPE_CHECKING:
    from torch import Tensor


def check_overwriting(
    plan: MergePlan,
    names: Sequence[str],
    sources: "Sequence[Mapping[str, Tensor]]",
    written: "Mapping[str, Tensor]",
    *,
    direct: bool,
) -> None:
    """Raises `ModelCompatibilityError` where a tensor would be read after it was overwritten.

    names: of the models, then of the base if there is one. sources: the tensors of each by name, as far as they are in
    memory. written: where each tensor of the plan is put; no two of them share memory. direct: whether the plan says
    which tensors of the models each tensor is made of. If it does not, no tensor of a model may be overwritten.
    """
    memory = MemoryMap(written)
    problems = []
    for made, name, i in _readings(plan, sources, direct):
        source = sources[i].get(name)
        if source is None or (made in written and where(source) == where(written[made])):
            continue
        if shared := memory.sharing(source):
            message = f"shares memory with '{shared[0]}' of 'out', so it could change before it is read. Clone it."
            problems.append(Problem(message, names[i], name))
    if problems:
        raise ModelCompatibilityError(*problems)


def _readings(
    plan: MergePlan, sources: "Sequence[Mapping[str, Tensor]]", direct: bool
) -> Iterator[tuple[str, str, int]]:
    """Which tensor is made of which tensor of which model; the first is "" where it may be any."""
    if direct:
        yield from ((tensor.name, tensor.name_in(i), i) for tensor in plan.tensors for i in tensor.inputs)
    else:
        yield from (("", name, i) for i, tensors in enumerate(sources) for name in tensors)
