"""In what form the merged adapter can change each tensor of the base that an adapter changes."""

from collections.abc import Iterator, Sequence

from attrs import frozen
from modelmerger import Checkpoint, ModelCompatibilityError, Problem

from modelmerger_plugins.peft_adapters.changes.change import Change
from modelmerger_plugins.peft_adapters.changes.low_rank import LowRank
from modelmerger_plugins.peft_adapters.changes.of_experts import OfExperts
from modelmerger_plugins.peft_adapters.changes.replaced import Replaced, ReplacedRows
from modelmerger_plugins.peft_adapters.changes.vectors import Shifted
from modelmerger_plugins.peft_adapters.folding.folded import Folded
from modelmerger_plugins.peft_adapters.merging.experts import ExpertsPart, TensorSum
from modelmerger_plugins.peft_adapters.merging.factored import FactoredPart
from modelmerger_plugins.peft_adapters.merging.obstacles import NumberedStep, nesting_obstacles, obstacles, terms_of
from modelmerger_plugins.peft_adapters.merging.part import Part
from modelmerger_plugins.peft_adapters.merging.products import Products
from modelmerger_plugins.peft_adapters.merging.replacing import ReplacingPart
from modelmerger_plugins.peft_adapters.merging.term import Term
from modelmerger_plugins.peft_adapters.options import Options
from modelmerger_plugins.peft_adapters.reading.modules import PREFIX, name_in_memory


@frozen(eq=False)
class Sorter:
    """Sorts what adapters do into the parts of a merged adapter. No weights are read."""

    models: Sequence[Folded]
    """The adapters, each folded into its base."""
    base: Checkpoint
    """What they are merged for."""
    options: Options
    """How they are merged."""

    def parts(self, left_out: frozenset[str]) -> list[Part]:
        """In the order of the base's tensors, those of `left_out` left out; then the parameters of experts.

        Raises `ModelCompatibilityError` with all that has no such form.
        """
        products = Products()
        parts: list[Part] = []
        sums: list[TensorSum] = []
        problems: dict[Problem, None] = {}
        for tensor in self.base.tensors:
            steps = list(self._steps(tensor))
            if not steps or tensor in left_out:
                continue
            if found := list(obstacles(tensor, steps, self.base, self.options.merge_method)):
                problems.update(dict.fromkeys(found))
            elif isinstance(steps[0][1].change, OfExperts):
                sums.append(TensorSum(tensor, terms_of(steps)))
            else:
                parts.append(self._part(tensor, steps, products))
        if found := [*problems, *nesting_obstacles(sums, self.base)]:
            raise ModelCompatibilityError(*found)
        return [*parts, *self._joined(sums, products)]

    def _steps(self, tensor: str) -> Iterator[NumberedStep]:
        for number, model in enumerate(self.models):
            yield from ((number, step) for step in model.steps(tensor))

    def _part(self, tensor: str, steps: Sequence[NumberedStep], products: Products) -> Part:
        terms = terms_of(steps)
        if len(terms) == len(steps):
            as_peft = self.options.merge_method == "peft_linear"
            return FactoredPart(tensor, terms, len(self.models), as_peft, self._most(terms), products=products)
        models = {number: self.models[number] for number, _ in steps}
        rows = [step.change for _, step in steps if isinstance(step.change, ReplacedRows)]
        indices = sorted({index for change in rows for index in change.indices}) if rows else None
        name = name_in_memory(_key(steps[0][1].change), tensor)
        key = rows[0].key if rows else f"{PREFIX}{name}"
        return ReplacingPart(tensor, self.base, models, name, key, indices, len(self.models))

    def _joined(self, sums: Sequence[TensorSum], products: Products) -> Iterator[ExpertsPart]:
        """Tensors by the parameter that they belong to."""
        by_parameter: dict[str, list[TensorSum]] = {}
        for of_one in sums:
            parameter = of_one.like.parameter
            by_parameter.setdefault(f"{parameter.module}.{parameter.name}", []).append(of_one)
        for name, of_parameter in by_parameter.items():
            ordered = sorted(of_parameter, key=lambda of_one: (of_one.like.experts[0], of_one.like.first))
            yield ExpertsPart(name, ordered, len(self.models), self._most(of_parameter[0].terms), products=products)

    def _most(self, terms: Sequence[Term]) -> int | None:
        """The largest rank that the merged update may have."""
        if self.options.merge_method != "svd":
            return None
        return self.options.rank or max(term.rank for term in terms)


def _key(change: Change) -> str:
    """A tensor of the adapter that makes a change."""
    assert isinstance(change, LowRank | Replaced | ReplacedRows | Shifted)
    return change.a if isinstance(change, LowRank) else change.key
