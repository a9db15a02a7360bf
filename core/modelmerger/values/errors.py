"""What can go wrong: exceptions that know their exit status and say their problems one line at a time."""

from collections.abc import Iterable
from typing import ClassVar, Literal

from attrs import frozen

from modelmerger.values.text import LINE_LIMIT, shown

Severity = Literal["error", "warning", "note"]
"""How bad it is."""
MOST_SHOWN = 20
"""Problems of one error that are said; of the others, how many there are."""


@frozen
class Problem:
    """One thing to say to the user."""

    message: str
    """A sentence: what is wrong, both values, what to do."""
    where: str = ""
    """The file, or the key of the config, that it is about; empty where there is none."""
    tensor: str = ""
    """The name of the tensor that it is about; empty where there is none."""
    severity: Severity = "error"
    """An error stops the merge; a warning or a note is said, and the merge goes on."""

    def __str__(self) -> str:
        parts = [shown(self.where), shown(self.tensor), shown(self.message, LINE_LIMIT)]
        line = ": ".join(part for part in parts if part)
        if len(line) > LINE_LIMIT - len("warning: "):
            room = LINE_LIMIT - len("warning: ") - sum(len(part) + 2 for part in parts[:2] if part)
            parts[2] = shown(self.message, room)
            line = ": ".join(part for part in parts if part)
        return line


class MergeError(Exception):
    """Base of every error this package raises on purpose."""

    exit_status: ClassVar[int] = 1
    """What the command line exits with."""
    omitted = 0
    """How many further problems whoever found these did not list."""

    def __init__(self, *problems: Problem | str) -> None:
        self.problems = tuple(Problem(p) if isinstance(p, str) else p for p in problems)
        """What is wrong, one entry each."""
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
    """A validator cannot measure something; the message, which the report has in place of a number, says why."""


class ThresholdError(MergeError):
    """A validation found a value worse than the worst acceptable one."""

    exit_status = 8


def raise_errors(problems: Iterable[Problem], error: type[MergeError], *, strict: bool = False) -> None:
    """Raises `error` with those of the problems that are errors, if there are any. strict: warnings are errors too."""
    grave = ("error", "warning") if strict else ("error",)
    if errors := [problem for problem in problems if problem.severity in grave]:
        raise error(*errors)
