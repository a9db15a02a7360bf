"""Why some updates cannot be merged into one adapter: each with what to do instead."""

from collections.abc import Iterator, Sequence

from modelmerger import Checkpoint, Problem

from modelmerger_plugins.peft_adapters.changes.change import Change
from modelmerger_plugins.peft_adapters.changes.low_rank import Decomposed, LowRank
from modelmerger_plugins.peft_adapters.changes.of_experts import OfExperts
from modelmerger_plugins.peft_adapters.changes.products import Hadamard, Kronecker, Vera
from modelmerger_plugins.peft_adapters.changes.replaced import Replaced, ReplacedRows
from modelmerger_plugins.peft_adapters.changes.vectors import Scaled, Shifted
from modelmerger_plugins.peft_adapters.folding.matrix import Step
from modelmerger_plugins.peft_adapters.merging.experts import TensorSum
from modelmerger_plugins.peft_adapters.merging.term import Term
from modelmerger_plugins.peft_adapters.section import ADVICE

NumberedStep = tuple[int, Step]
"""The number of a model, and one of its steps."""
KINDS: dict[type[Change], str] = {Decomposed: "DoRA", Scaled: "IA³", Hadamard: "LoHa", Kronecker: "LoKr", Vera: "VeRA"}
"""The kinds of adapters that have no merged form, by what they do."""


def terms_of(steps: Sequence[NumberedStep]) -> list[Term]:
    """Those of the steps that are low-rank updates."""
    return [
        Term(number, step.adapter, step.change)
        for number, step in steps
        if isinstance(step.change, LowRank | OfExperts)
    ]


def obstacles(
    tensor: str, steps: Sequence[NumberedStep], base: Checkpoint, merge_method: str | None
) -> Iterator[Problem]:
    """Why the merged adapter cannot change a tensor of the base as these steps ask, in every one of them."""
    changes = [step.change for _, step in steps]
    for _, step in steps:
        if not isinstance(step.change, LowRank | OfExperts | Replaced | ReplacedRows | Shifted):
            kind = KINDS[type(step.change)]
            message = f"is a {kind} adapter, whose updates are no low-rank matrices that add up to one. {ADVICE}."
            yield Problem(message, step.adapter.stored.place)
    if len({isinstance(change, ReplacedRows) for change in changes}) > 1:
        message = (
            "has some rows replaced by one adapter (trainable_token_indices) and is changed otherwise by another. "
            f"{ADVICE}."
        )
        yield Problem(message, base.place, tensor)
    if len({isinstance(change, OfExperts) for change in changes}) > 1:
        message = f"is changed as a part of target_parameters by one adapter and otherwise by another. {ADVICE}."
        yield Problem(message, base.place, tensor)
    if merge_method == "peft_linear" and isinstance(changes[0], OfExperts):
        message = "is a part of target_parameters, of which PEFT makes no weighted sum. Use linear."
        yield Problem(message, "options.merge_method", tensor)
    terms = terms_of(steps)
    if len({term.change.swapped for term in terms}) > 1:
        message = f"is square, and the adapters do not agree whether it is stored transposed. {ADVICE}."
        yield Problem(message, base.place, tensor)
    ranks = sorted({term.rank for term in terms})
    if merge_method == "peft_linear" and len(ranks) > 1:
        found = ", ".join(map(str, ranks))
        message = f"has updates of the ranks {found}, and peft_linear adds factors of one rank. Use linear."
        yield Problem(message, "options.merge_method", tensor)


def nesting_obstacles(sums: Sequence[TensorSum], base: Checkpoint) -> Iterator[Problem]:
    """Adapters that change different parameters of a module: PEFT has no names for what comes of it."""
    nested: dict[str, set[tuple[str, ...]]] = {}
    for change in (term.change for of_one in sums for term in of_one.terms):
        if isinstance(change, OfExperts):
            nested.setdefault(change.parameter.module, set()).add(change.parameter.nested)
    for module, ways in nested.items():
        if len(ways) > 1:
            sets = " and ".join(sorted(", ".join(sorted(names)) for names in ways))
            message = f"has {sets} changed by different adapters, and PEFT wants target_parameters alike. {ADVICE}."
            yield Problem(message, base.place, module)
