"""The plan of a merge: pure data, every byte to be read and written, known before the first tensor is read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
from attrs import field, frozen

from modelmerger.values.errors import Problem
from modelmerger.values.file_identity import FileIdentity
from modelmerger.values.layout import FilesBeside, Layout
from modelmerger.values.tensor_plan import TensorPlan
from modelmerger.values.text import amount, html_table, shown, size, with_article
from modelmerger.values.varied import shown_ranges
from modelmerger.values.weights import Weight, shown_weight

WHOLE_MODEL = "model"
"""What a merge writes, unless it is a composition of another kind."""
_PAST = ", past the page cache"


@frozen
class PlannedModel:
    """A checkpoint of the plan."""

    name: str
    """Unique in the plan."""
    path: str
    """As the config has it."""
    weight: Weight | None
    """As the config has it; None for the base model."""
    options: Any = None
    """What the strategy wants to know of each model, as an attrs value of its own; None where it wants nothing."""
    revision: str = ""
    """The commit that is read, where the path can come to stand for another one."""
    merge: "MergePlan | None" = field(default=None, repr=False)
    """The plan of the merge that it is itself, and that is not written; None for a model that lies at its path."""

    def own_options(self, *, given: bool = False) -> dict[str, Any]:
        """What the strategy wanted to know of it, by key; `given`: only what is not at its default."""
        if self.options is None:
            return {}
        defaults = {field.name: field.default for field in attrs.fields(type(self.options))}
        told = attrs.asdict(self.options)
        return {key: value for key, value in told.items() if not given or value != defaults[key]}

    def as_dict(self) -> dict[str, Any]:
        """The model as plain data, for `--json`."""
        data = {"name": self.name, "path": self.path, "revision": self.revision or None, "weight": self.weight}
        data |= self.own_options()
        return data if self.merge is None else data | {"merge": self.merge.as_inner_dict()}


@frozen(kw_only=True, repr=False)
class MergePlan:
    """Everything that decides the output's bytes, and what the merge will cost."""

    strategy: str
    """Its name."""
    donor: int
    """The number of the model that gives config and tokenizer."""
    models: Sequence[PlannedModel]
    """In the order of the config, then the base model if there is one."""
    inputs: Sequence[FileIdentity] = field(repr=False)
    """Every file that is read."""
    tensors: Sequence[TensorPlan] = field(repr=False)
    """Every tensor of the output; where each lies, `layout` says."""
    layout: Layout = field(repr=False)
    """The files of weights, to the byte."""
    workers: int
    """How many blocks are made at a time."""
    slice_elements: int
    """The most elements of a tensor that are merged at a time by a worker."""
    bytes_read: int
    """What is read twice, for a measurement, counts twice."""
    bytes_written: int
    """All files of weights."""
    memory: int
    """Bytes at the expected peak."""
    memory_parts: Mapping[str, int] = field(factory=dict)
    """What `memory` is made of, in bytes: the process itself, its workers, and so on."""
    tried: bool = False
    """Whether `memory` follows from a trial of a few slices, and not from the shapes of tensors alone."""
    digest: str
    """The plan's name: equal digests, equal outputs. Empty where nothing asks for it."""
    decides: Mapping[str, str] = field(factory=dict, repr=False)
    """The digests of the parts that the plan's is made of, by what they are about."""
    notes: Sequence[Problem] = ()
    """What options decided that their user should know."""
    composed: bool = False
    """Whether the tensors are read from a composition of the models and written as they are read."""
    updates: bool = False
    """Whether the composition is made of what the models change of their base, and not of the models."""
    adds_up: bool = False
    """Whether such a composition is the base and Σ cᵢ·updateᵢ with any coefficients, but for rounding."""
    writes: str = WHOLE_MODEL
    """What the output is, in a word: a whole model, or what belongs to one ("adapter")."""
    options: Mapping[str, Any] = field(factory=dict)
    """Those of the merge, as the config gives them."""
    worker_memory: int = 0
    """Bytes that a worker holds for this merge, those of merges within it left out."""
    bytes_compared: int = 0
    """Those of `bytes_read` that are read before the first write, those of merges within it left out."""
    bytes_reused: int = 0
    """Those of `bytes_read` that come from memory, where what was measured of inputs from the disk is kept."""
    ways: Mapping[str, str] = field(factory=dict, repr=False)
    """Which way most of each file comes, by its path: "cached", "direct" (past the page cache) or "buffered"."""
    direct: bool = False
    """Whether the files of weights are written past the page cache, where their file system lets them."""
    beside: FilesBeside = field(factory=FilesBeside)
    """What becomes of the files beside the weights; empty for a merge within another one."""

    @property
    def disk(self) -> int:
        """Bytes that must be free beside the output: the weights, and room for config, tokenizer and journal."""
        return self.bytes_written + (64 << 20)

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data, for `--json`."""
        return {
            "strategy": self.strategy,
            "merges": "updates" if self.updates else "full weights",
            "writes": self.writes,
            "digest": self.digest,
            "models": [model.as_dict() for model in self.models],
            "donor": self.models[self.donor].name,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "memory": self.memory,
            "memory_parts": dict(self.memory_parts),
            "tried": self.tried,
            "disk": self.disk,
            "io": {"inputs": dict(self.ways), "output": "direct" if self.direct else "buffered"},
            "workers": self.workers,
            "notes": [{"severity": note.severity, "message": str(note)} for note in self.notes],
            "files": [
                {
                    "name": file.name,
                    "size": file.size,
                    "tensors": [
                        {
                            "name": p.tensor.name,
                            "dtype": p.tensor.dtype,
                            "shape": list(p.tensor.shape),
                            "offset": p.offset,
                        }
                        for p in file.placements
                    ],
                }
                for file in self.layout.files
            ],
            "beside": self.beside.as_dict(),
            "tensors": self._tensors_as_dicts(),
        }

    def as_inner_dict(self) -> dict[str, Any]:
        """The plan of a merge within another one as plain data: what decides its numbers, and nothing of an output."""
        return {
            "strategy": self.strategy,
            "options": dict(self.options),
            "digest": self.digest,
            "models": [model.as_dict() for model in self.models],
            "donor": self.models[self.donor].name,
            "tensors": self._tensors_as_dicts(),
        }

    def _tensors_as_dicts(self) -> list[dict[str, Any]]:
        return [
            {
                "name": t.name,
                "action": t.action,
                "inputs": self.names_of_inputs(t),
                "weights": t.weights,
                **t.varying(),
                "coefficients": t.coefficients,
            }
            for t in self.tensors
        ]

    def names_of_inputs(self, tensor: TensorPlan) -> list[str]:
        """The models that a tensor is made of."""
        if self.composed:
            without_base = self.updates and self.writes != WHOLE_MODEL
            return [model.name for model in self.models if model.weight is not None or not without_base]
        return [self.models[i].name for i in tensor.inputs]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {_what(self)}, {self._counted()}, {size(self.bytes_written)}>"

    def _repr_html_(self) -> str:
        lines = [line.split("  ", 1) if "  " in line.strip() else [line, ""] for line in str(self).splitlines()]
        return html_table("Plan", [[first, rest.strip()] for first, rest in lines])

    def __str__(self) -> str:
        of_what = ", of what they change of their base" if self.updates else ""
        varies = shown_ranges((tensor.varying() for tensor in self.tensors), [model.name for model in self.models])
        files = amount(len(self.layout.files), "file")
        lines = [
            f"{_what(self)}{of_what}",
            *_lines_of_models(self, "  ", gives=True, told=set()),
            f"tensors  {self._counted()}",
            *([f"varies   {varies} by tensor"] if varies else []),
            f"output   {files} ({shown(self.layout.format)}), {size(self.bytes_written)}" + _PAST * self.direct,
            f"beside   {self._files_beside()}",
            f"reads    {size(self.bytes_read)}{self._ways()}",
            f"memory   about {size(self.memory)} with {amount(self.workers, 'worker')}" + ", tried out" * self.tried,
            f"disk     {size(self.disk)} while merging",
            *(f"{note.severity:<8} {note}" for note in self.notes),
        ]
        return "\n".join(lines)

    def _ways(self) -> str:
        """How many of the inputs come past the page cache."""
        past = sum(way == "direct" for way in self.ways.values())
        return f", {past:,} of {amount(len(self.ways), 'file')}{_PAST[1:]}" if past else ""

    def _files_beside(self) -> str:
        copied, made = len(self.beside.copied), len(self.beside.made)
        left = sum(map(len, self.beside.left.values()))
        return f"{amount(copied, 'file')} copied, {made:,} made, {left:,} left behind"

    def _counted(self) -> str:
        if self.writes != WHOLE_MODEL:
            return f"{amount(len(self.tensors), 'tensor')} of {shown(with_article(self.writes))}"
        if self.updates:
            return f"{amount(len(self.tensors), 'tensor')} of the base, with the merged updates added"
        if self.composed:
            return amount(len(self.tensors), "composed tensor")
        merged = sum(tensor.action in ("combine", "merge") for tensor in self.tensors)
        return f"{amount(merged, 'merged tensor')}, {amount(len(self.tensors) - merged, 'copied tensor')}"


def _what(plan: MergePlan) -> str:
    return f"{shown(plan.strategy)} of {amount(sum(m.weight is not None for m in plan.models), 'model')}"


def _given_by(plan: MergePlan, model: PlannedModel, is_donor: bool) -> str:
    """What a model gives besides weights."""
    givers = {giver for file, giver in plan.beside.copied.items() if file.startswith("tokenizer")}
    others = givers and givers <= {one.name for one in plan.models} - {plan.models[plan.donor].name}
    if is_donor:
        return f", gives config{'' if others else ' and tokenizer'}"
    return ", gives tokenizer" if others and model.name in givers else ""


def _lines_of_models(plan: MergePlan, indent: str, gives: bool, told: set[str]) -> Iterator[str]:
    """A line for each model, and for one that is a merge lines for its models.

    gives: whether config and tokenizer come from this merge. told: digests of merges whose models are said already.
    """
    for index, model in enumerate(plan.models):
        role = "base" if model.weight is None else f"weight {shown(shown_weight(model.weight))}"
        own = "".join(f", {shown(key)} {shown(value)}" for key, value in model.own_options(given=True).items())
        here = gives and index == plan.donor
        if model.merge is None:
            place = shown(model.path) + (f", commit {shown(model.revision)}" if model.revision else "")
            yield f"{indent}{shown(model.name)}: {role}{own}{_given_by(plan, model, here)} ({place})"
            continue
        how = ", ".join(f"{shown(key)} {shown(value)}" for key, value in model.merge.options.items())
        again = ", as above" if model.merge.digest in told else ""
        yield f"{indent}{shown(model.name)}: {role}{own}, {_what(model.merge)}{f' ({how})' if how else ''}{again}"
        if not again:
            told.add(model.merge.digest)
            yield from _lines_of_models(model.merge, f"{indent}  ", here, told)
