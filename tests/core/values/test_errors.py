"""Errors as the user meets them: one short line a problem, at most twenty, and an exit status by kind."""

import pytest
from modelmerger.values import errors
from modelmerger.values.errors import (
    ConfigError,
    InputChangedError,
    InputError,
    MergeError,
    ModelCompatibilityError,
    NumericError,
    OutputError,
    PluginError,
    Problem,
    raise_errors,
)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (MergeError, 1),
        (ConfigError, 2),
        (InputError, 3),
        (ModelCompatibilityError, 3),
        (OutputError, 4),
        (NumericError, 5),
        (InputChangedError, 6),
        (PluginError, 7),
    ],
)
def test_every_kind_of_error_has_its_exit_status(kind: type[MergeError], status: int) -> None:
    assert kind("reason").exit_status == status
    assert isinstance(kind("reason"), MergeError)


def test_every_error_of_the_module_is_of_one_family() -> None:
    kinds = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, Exception)]
    assert kinds
    assert all(issubclass(kind, MergeError) for kind in kinds)


def test_a_problem_reads_file_then_tensor_then_reason() -> None:
    assert str(Problem("is odd.", "m.safetensors", "norm")) == "m.safetensors: norm: is odd."
    assert str(Problem("is odd.", tensor="norm")) == "norm: is odd."
    assert str(Problem("is odd.")) == "is odd."


@pytest.mark.parametrize("part", ["message", "where", "tensor"])
def test_no_part_of_a_problem_can_break_the_line_or_outgrow_it(part: str) -> None:
    hostile = {"message": "m", "where": "w", "tensor": "t"} | {part: "x\n\x1b[2J\u202e" + "y" * 5000 + "end"}
    line = str(Problem(**hostile))
    assert "\n" not in line
    assert "\x1b" not in line
    assert "\u202e" not in line
    assert len(f"warning: {line}") <= 300
    assert line.count("…") >= 1


def test_a_long_reason_keeps_its_beginning_and_its_advice() -> None:
    line = str(Problem("begins here " + "x" * 1000 + " do this", "w" * 1000, "t" * 1000))
    assert len(f"warning: {line}") <= 300
    assert line.startswith("www")
    assert line.endswith("do this")


def test_at_most_twenty_lines_then_how_many_more() -> None:
    problems = [Problem(f"number {n}") for n in range(25)]
    assert InputError(*problems[:20]).lines() == [f"number {n}" for n in range(20)]
    assert InputError(*problems).lines()[20:] == ["… and 5 more"]
    assert str(InputError(*problems)).splitlines() == InputError(*problems).lines()
    assert len(InputError(*problems).problems) == 25


def test_what_the_finder_left_out_is_counted_too() -> None:
    error = ConfigError(*[f"number {n}" for n in range(20)])
    error.omitted = 7
    assert error.lines()[-1] == "… and 7 more"
    assert len(error.lines()) == 21


def test_only_errors_are_raised_warnings_and_notes_are_not() -> None:
    problems = [Problem("a note", severity="note"), Problem("a warning", severity="warning")]
    raise_errors(problems, InputError)
    with pytest.raises(ModelCompatibilityError) as caught:
        raise_errors([*problems, Problem("wrong")], ModelCompatibilityError)
    assert [p.message for p in caught.value.problems] == ["wrong"]
