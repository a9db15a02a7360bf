"""What stands against a strategy that merges updates in the space that they share, and not by coefficients."""

from collections.abc import Sequence

from modelmerger import Checkpoint, Coefficients, ModelCompatibilityError, Problem, Settings

from modelmerger_plugins.peft_adapters.merging.experts import ExpertsPart
from modelmerger_plugins.peft_adapters.merging.factored import FactoredPart
from modelmerger_plugins.peft_adapters.merging.part import Part
from modelmerger_plugins.peft_adapters.options import Options
from modelmerger_plugins.peft_adapters.section import ADVICE


def check_cores(
    parts: Sequence[Part], base: Checkpoint, settings: Settings, options: Options, coefficients: Coefficients
) -> None:
    """Raises `ModelCompatibilityError` with one problem for each cause, which names the first of its tensors."""
    problems: dict[str, Problem] = {}
    for part in parts:
        tensors = [of_one.tensor for of_one in part.sums] if isinstance(part, ExpertsPart) else [part.tensor]
        for tensor in tensors:
            shape = base.tensors[tensor].shape
            if not coefficients.in_cores(tensor, shape):
                continue
            if options.merge_method == "peft_linear":
                message = f"adds factors up, and {settings.strategy} merges updates otherwise. Use linear."
                problems.setdefault(message, Problem(message, "options.merge_method"))
            elif (cause := _cause(part, len(shape))) is not None:
                message = f"{cause}, and {settings.strategy} merges low-rank updates of matrices alone. {ADVICE}."
                problems.setdefault(message, Problem(message, base.place, tensor))
    if problems:
        raise ModelCompatibilityError(*problems.values())


def _cause(part: Part, dimensions: int) -> str | None:
    """Why an update has no core; None where it has one."""
    if isinstance(part, ExpertsPart):
        return "is changed as a part of target_parameters, whose factors several tensors share"
    if not isinstance(part, FactoredPart):
        return "is replaced by an adapter"
    return None if dimensions == 2 else f"has {dimensions} dimensions"
