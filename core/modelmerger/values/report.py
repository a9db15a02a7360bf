"""What happened in a merge, for people and machines."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import asdict, frozen

from modelmerger.values.errors import Problem
from modelmerger.values.findings import ValidationReport
from modelmerger.values.text import amount, shown, size


@frozen(kw_only=True)
class MergeReport:
    """output: the published directory. bytes_reused: what an earlier, interrupted run had already made. seconds: wall time.

    counts: what the strategy counted ("clamped values"). observed: statistics of each tensor, where a plugin asked for them, and the relative
    error of each merged update. relative_error: that of all merged updates together; None where no updates were merged.
    base: where the model lies that the output, an adapter, belongs to; None for a model.
    validation: what was found about the merged model, where the config asks for it.
    """

    output: str
    strategy: str
    models: Sequence[str]
    tensors: int
    bytes_read: int
    bytes_written: int
    bytes_reused: int
    seconds: float
    plan: str
    notes: Sequence[Problem]
    counts: Mapping[str, int]
    observed: Mapping[str, Mapping[str, float]]
    relative_error: float | None = None
    base: str | None = None
    validation: ValidationReport | None = None

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, for `--json`."""
        data = asdict(self, recurse=False)
        data["models"] = list(self.models)
        data["validation"] = self.validation.as_dict() if self.validation is not None else None
        data["notes"] = [{"severity": note.severity, "message": str(note)} for note in self.notes]
        return data

    def __str__(self) -> str:
        counts = "".join(f", {count:,} {what}" for what, count in self.counts.items())
        error = "" if self.relative_error is None else f", relative error {self.relative_error:.2g}"
        reused = f", {size(self.bytes_reused)} of it made by an earlier run" if self.bytes_reused else ""
        return (
            f"merged {amount(len(self.models), 'model')} ({self.strategy}) into {shown(self.output)}: "
            f"{amount(self.tensors, 'tensor')}, {size(self.bytes_written)}{reused} in {self.seconds:.1f} s{counts}{error}"
        )
