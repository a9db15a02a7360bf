"""What can go wrong, as one family of exceptions: each knows its exit status and says its problems one line at a time."""

from collections.abc import Iterable
from typing import ClassVar, Literal

from attrs import frozen

from modelmerger.values.text import LINE_LIMIT, shown

Severity = Literal["error", "warning", "note"]
MOST_SHOWN = 20


@frozen
class Problem:
    """One thing to say about an input: a sentence, the file or place it is about, and the tensor if there is one."""

    message: str
    where: str = ""
    tensor: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        parts = [shown(self.where), shown(self.tensor), shown(self.message, LINE_LIMIT)]
        line = ": ".join(part for part in parts if part)
        if len(line) > LINE_LIMIT - len("warning: "):
            room = LINE_LIMIT - len("warning: ") - sum(len(part) + 2 for part in parts[:2] if part)
            parts[2] = shown(self.message, room)
            line = ": ".join(part for part in parts if part)
        return line


class MergeError(Exception):
    """Base of every error this package raises on purpose. `.problems` holds what is wrong, one entry each."""

    exit_status: ClassVar[int] = 1
    omitted = 0
    """How many further problems whoever found these did not list."""

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(Problem(p) if isinstance(p, str) else p for p in problems)
        super().__init__(*self.problems)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """At most twenty lines of at most 300 characters, then how many more there are."""
        lines = [str(problem) for problem in self.problems[:MOST_SHOWN]]
        if more := len(self.problems) - len(lines) + self.omitted:
            lines.append(f"… and {more} more")
        return lines


class ConfigError(MergeError):
    """The config or the command line says something that cannot be done."""

    exit_status = 2


class InputError(MergeError):
    """An input model is missing, damaged, refused, or is not what its manifest says."""

    exit_status = 3


class ModelCompatibilityError(InputError):
    """The models are sound, each by itself, and cannot be merged with each other."""


class OutputError(MergeError):
    """The output could not be written, or may not be."""

    exit_status = 4


class NumericError(MergeError):
    """A NaN, an infinity, or a result that has no defined value."""

    exit_status = 5


class InputChangedError(MergeError):
    """An input was changed while it was being merged."""

    exit_status = 6


class PluginError(MergeError):
    """A plugin could not be imported, broke the contract of its hook, or raised."""

    exit_status = 7


class UnmeasurableError(MergeError):
    """A validator cannot measure something; the message says why. The report says it in place of a number, and goes on."""


class ThresholdError(MergeError):
    """A validation found a value worse than the worst acceptable one."""

    exit_status = 8


def raise_errors(problems: Iterable[Problem], error: type[MergeError]) -> None:
    """Raises `error` with those of the problems that are errors, if there are any."""
    if errors := [problem for problem in problems if problem.severity == "error"]:
        raise error(*errors)
