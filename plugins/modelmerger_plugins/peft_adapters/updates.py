"""Merges the updates of adapters: tensor by tensor, with the strategy's coefficients, into an adapter or into the base."""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from attrs import evolve, field, frozen
from modelmerger import (
    WHOLE_MODEL,
    Checkpoint,
    Coefficients,
    ConfigError,
    MergedUpdates,
    ModelCompatibilityError,
    Problem,
    Settings,
)
from modelmerger.engine.arithmetic import one_thread_each
from modelmerger.values.dtypes import torch_dtype

from modelmerger_plugins.peft_adapters import config, output
from modelmerger_plugins.peft_adapters.changes import (
    Change,
    Decomposed,
    Hadamard,
    Kronecker,
    LowRank,
    OfExperts,
    Replaced,
    ReplacedRows,
    Scaled,
    Shifted,
    Vera,
)
from modelmerger_plugins.peft_adapters.folding import Adapter, Folded
from modelmerger_plugins.peft_adapters.keys import PREFIX
from modelmerger_plugins.peft_adapters.merged import (
    ExpertsPart,
    FactoredPart,
    MergedAdapter,
    Part,
    Piece,
    Products,
    ReplacingPart,
    Term,
)

Step = tuple[int, Adapter, Change]
"""Which model, which of its adapters, what it does to a tensor."""
KINDS: dict[type[Change], str] = {Decomposed: "DoRA", Scaled: "IA³", Hadamard: "LoHa", Kronecker: "LoKr", Vera: "VeRA"}
ADVICE = "Set peft_config.merge_adapters: false, which folds each adapter into its base"
LARGE_ERROR = 0.1
HELD = 4
"""Copies of a tensor's factors that its product takes: the stacked ones, the orthogonal ones, the product, one in between."""


def merge(
    models: Sequence[Folded], base: Checkpoint, settings: Settings, options: Any, coefficients: Coefficients
) -> MergedUpdates:
    """The merged updates of these models, as an adapter or folded into the base. `options`: of this plugin."""
    parts = Sorter(models, base, options).parts(coefficients.kept)
    written = settings.options.written("F32")
    to_adapter = options.preserve_base_model is not False
    rounded = torch_dtype(written) if to_adapter else torch.float64
    with one_thread_each(), ThreadPoolExecutor(settings.options.workers) as pool:
        weighed = list(pool.map(lambda part: part.weighed(base, coefficients), parts))
        found = list(pool.map(lambda part: part.measured(rounded), [part for part in weighed if part.counts]))
    if not found:
        message = "every coefficient of this merge is zero, so nothing would be left. Give a weight other than 0."
        raise ConfigError(Problem(message, "models"))
    known = output.named([item.part for item in found])
    adapter = MergedAdapter("the merged adapter", known, tuple(file for model in models for file in model.files))
    square = sum(item.square for item in found)
    error = math.sqrt(sum(item.missing for item in found) / square) if square else 0.0
    result = MergedUpdates(
        adapter,
        dict.fromkeys(adapter.tensors, written),
        "adapter",
        "adapter_model",
        sharded=False,
        relative_errors={item.part.tensor: item.relative_error for item in found if item.square},
        relative_error=error,
        memory=HELD * 8 * max((part.numbers for part in known), default=0),
        notes=[*coefficients.notes, _note_on_error(error)],
    )
    if to_adapter:
        configs = [adapter.config for model in models for adapter in model.adapters if adapter.config is not None]
        content = output.adapter_config(known, configs, base, models[0].base.reference)
        return evolve(result, documents={config.FILE: content})
    return _folded(result, adapter, models[0], settings)


def _folded(result: MergedUpdates, adapter: MergedAdapter, like: Folded, settings: Settings) -> MergedUpdates:
    changes = {tensor: [change] for part in adapter.parts for tensor, change in part.changes.items()}
    allow_nonfinite = settings.options.allow_nonfinite
    base = like.base.checkpoint
    model = Folded(base.name, like.base, [Adapter(adapter, changes, allow_nonfinite)], (), base.donor, like.wide)
    dtypes = {name: settings.options.written(info.dtype) for name, info in base.tensors.items()}
    return evolve(result, checkpoint=model, dtypes=dtypes, writes=WHOLE_MODEL, stem="model", sharded=True)


def _note_on_error(relative_error: float) -> Problem:
    """How far the merged updates are from what was asked for; a warning above 10 %."""
    message = f"the merged updates differ from the exact merge by {relative_error:.2g} of their norm"
    if relative_error <= LARGE_ERROR:
        return Problem(f"{message}.", "updates", severity="note")
    advice = "Give a higher rank, or merge_method: linear, which is exact"
    return Problem(f"{message}: more than 10 %. {advice}.", "updates", severity="warning")


@frozen(eq=False)
class Sorter:
    """Finds, for each tensor of the base that an adapter changes, in what form the merged adapter can change it."""

    models: Sequence[Folded]
    base: Checkpoint
    options: Any
    problems: list[Problem] = field(factory=list, init=False)

    def parts(self, kept: frozenset[str]) -> list[Part]:
        """In the order of the base's tensors, `kept` ones left out. Raises `ModelCompatibilityError` with all that has no such form."""
        held = Products()
        found: list[Part | Piece] = []
        for tensor in self.base.tensors:
            steps = list(self._steps(tensor))
            if steps and tensor not in kept and self._fits(tensor, steps):
                found.append(self._part(tensor, steps, held))
        pieces = [item for item in found if isinstance(item, Piece)]
        self.problems.extend(_nesting_problems(pieces, self.base))
        if self.problems:
            raise ModelCompatibilityError(*self.problems)
        return [*(item for item in found if isinstance(item, Part)), *self._joined(pieces, held)]

    def _joined(self, pieces: Sequence[Piece], held: Products) -> Iterator[ExpertsPart]:
        """Pieces by the parameter that they belong to."""
        by_parameter: dict[str, list[Piece]] = {}
        for piece in pieces:
            by_parameter.setdefault(f"{piece.like.module}.{piece.like.parameter}", []).append(piece)
        for name, of_one in by_parameter.items():
            ordered = sorted(of_one, key=lambda piece: (piece.like.held[0], piece.like.first))
            yield ExpertsPart(name, ordered, len(self.models), self._most(of_one[0].terms), held=held)

    def _most(self, terms: Sequence[Term]) -> int | None:
        """The largest rank that the merged update may have."""
        if self.options.merge_method != "svd":
            return None
        return self.options.rank or max(term.rank for term in terms)

    def _steps(self, tensor: str) -> Iterator[Step]:
        for index, model in enumerate(self.models):
            yield from ((index, adapter, change) for adapter, change in model.steps(tensor))

    def _part(self, tensor: str, steps: Sequence[Step], held: Products) -> Part | Piece:
        terms = _terms(steps)
        if len(terms) == len(steps):
            if isinstance(terms[0].change, OfExperts):
                return Piece(tensor, terms)
            as_peft = self.options.merge_method == "peft_linear"
            return FactoredPart(tensor, terms, len(self.models), as_peft, self._most(terms), held=held)
        models = {index: self.models[index] for index, _, _ in steps}
        rows = [change for _, _, change in steps if isinstance(change, ReplacedRows)]
        indices = sorted({index for change in rows for index in change.indices}) if rows else None
        key = rows[0].key if rows else f"{PREFIX}{tensor}"
        return ReplacingPart(tensor, self.base, models, key, indices, len(self.models))

    def _fits(self, tensor: str, steps: Sequence[Step]) -> bool:
        problems = list(dict.fromkeys(self._problems(tensor, steps)))
        self.problems.extend(problem for problem in problems if problem not in self.problems)
        return not problems

    def _problems(self, tensor: str, steps: Sequence[Step]) -> Iterator[Problem]:
        for _, adapter, change in steps:
            if not isinstance(change, LowRank | OfExperts | Replaced | ReplacedRows | Shifted):
                message = f"is a {KINDS[type(change)]} adapter, whose updates are no low-rank matrices that add up to one. {ADVICE}."
                yield Problem(message, adapter.stored.place)
        if len({isinstance(change, ReplacedRows) for _, _, change in steps}) > 1:
            message = f"has some rows replaced by one adapter (trainable_token_indices) and is changed otherwise by another. {ADVICE}."
            yield Problem(message, self.base.place, tensor)
        if len({isinstance(change, OfExperts) for _, _, change in steps}) > 1:
            message = f"is changed as a part of target_parameters by one adapter and otherwise by another. {ADVICE}."
            yield Problem(message, self.base.place, tensor)
        if self.options.merge_method == "peft_linear" and isinstance(steps[0][2], OfExperts):
            message = "is a part of target_parameters, of which PEFT makes no weighted sum. Use linear."
            yield Problem(message, "options.merge_method", tensor)
        terms = _terms(steps)
        if len({term.change.swapped for term in terms}) > 1:
            message = f"is square, and the adapters do not agree whether it is stored transposed. {ADVICE}."
            yield Problem(message, self.base.place, tensor)
        ranks = sorted({term.rank for term in terms})
        if self.options.merge_method == "peft_linear" and len(ranks) > 1:
            message = f"has updates of the ranks {', '.join(map(str, ranks))}, and peft_linear adds factors of one rank. Use linear."
            yield Problem(message, "options.merge_method", tensor)


def _terms(steps: Sequence[Step]) -> list[Term]:
    return [Term(index, adapter, change) for index, adapter, change in steps if isinstance(change, LowRank | OfExperts)]


def _nesting_problems(pieces: Sequence[Piece], base: Checkpoint) -> Iterator[Problem]:
    """Adapters that change different parameters of a module: PEFT has no names for what comes of it."""
    nested: dict[str, set[tuple[str, ...]]] = {}
    for change in (term.change for piece in pieces for term in piece.terms):
        if isinstance(change, OfExperts):
            nested.setdefault(change.module, set()).add(change.nested)
    for module, ways in nested.items():
        if len(ways) > 1:
            sets = " and ".join(sorted(", ".join(sorted(names)) for names in ways))
            message = f"has {sets} changed by different adapters, and PEFT wants target_parameters alike. {ADVICE}."
            yield Problem(message, base.place, module)
