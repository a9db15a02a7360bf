"""What happened in a merge, for people and machines."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import asdict, field, frozen

from modelmerger.values.errors import Problem
from modelmerger.values.layout import FilesBeside, InputTensors
from modelmerger.values.text import amount, html_table, shown, size
from modelmerger.values.work.figures import Rows

if TYPE_CHECKING:
    from modelmerger.values.findings import ValidationReport


@frozen(kw_only=True, repr=False)
class MergeReport:
    """What a merge made, of what, and what is to be said of it."""

    output: str
    """The published directory. Of a merge into memory, a temporary one that holds the files beside the weights, and
    lives as long as the model."""
    strategy: str
    """Its name."""
    models: Sequence[str]
    """The names of the models of the config, in their order."""
    tensors: int
    """How many the output has."""
    bytes_read: int
    """As planned, with what is read twice, for a measurement, counted twice."""
    bytes_written: int
    """All files of weights."""
    bytes_reused: int
    """Those of them that an earlier, interrupted run had already made."""
    seconds: float
    """By the clock."""
    plan: str
    """The digest of the plan."""
    notes: Sequence[Problem]
    """Warnings and notes, as they came up."""
    counts: Mapping[str, int]
    """What the strategy counted ("clamped values")."""
    observed: Mapping[str, Mapping[str, float]] = field(repr=False)
    """Tensor → statistic → number, where a plugin asked for them, and what a composition says of its tensors."""
    relative_error: float | None = None
    """‖written − exact‖/‖exact‖ over all tensors, where a composition approximates what it should be; else None."""
    base: str | None = None
    """Where the model lies that the output belongs to; None for a whole model, and where no base model was given."""
    in_memory: bool = False
    """Whether the weights are in memory alone."""
    beside: FilesBeside = field(factory=FilesBeside)
    """What became of the files beside the weights."""
    input_tensors: Mapping[str, InputTensors] = field(factory=dict, repr=False)
    """What became of the tensors of each model, in merges within the merge too, by its name; empty where nothing says
    what the output is made of, as of merged updates of adapters."""
    figures: Mapping[str, Rows] = field(factory=dict, repr=False)
    """What plugins measured of what is written: title → row (a model) → column (a label) → number."""
    validation: "ValidationReport | None" = None
    """What was found about the merged model, where the config asks for it."""

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, for `--json`."""
        data = asdict(self, recurse=False)
        data["models"] = list(self.models)
        data["beside"] = self.beside.as_dict()
        data["input_tensors"] = {name: found.as_dict() for name, found in self.input_tensors.items()}
        data["validation"] = self.validation.as_dict() if self.validation is not None else None
        data["notes"] = [{"severity": note.severity, "message": str(note)} for note in self.notes]
        return data

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"

    def _repr_html_(self) -> str:
        facts: list[tuple[str, object]] = [
            ("output", "memory" if self.in_memory else self.output),
            ("strategy", self.strategy),
            ("models", ", ".join(self.models)),
            ("tensors", f"{self.tensors:,}"),
            ("written", size(self.bytes_written)),
            ("seconds", f"{self.seconds:.1f}"),
        ]
        facts += [(what, f"{count:,}") for what, count in self.counts.items()]
        facts += [(note.severity, note) for note in self.notes]
        validation = self.validation._repr_html_() if self.validation is not None else ""
        return html_table("Merge", facts) + validation

    def __str__(self) -> str:
        counts = "".join(f", {count:,} {shown(what)}" for what, count in self.counts.items())
        error = "" if self.relative_error is None else f", relative error {self.relative_error:.2g}"
        reused = f", {size(self.bytes_reused)} of it made by an earlier run" if self.bytes_reused else ""
        where = "memory" if self.in_memory else shown(self.output)
        return (
            f"merged {amount(len(self.models), 'model')} ({shown(self.strategy)}) into {where}: "
            f"{amount(self.tensors, 'tensor')}, {size(self.bytes_written)}{reused} "
            f"in {self.seconds:.1f} s{counts}{error}"
        )
