"""Inquiries are answered by a process of its own, within limits, and that there is no answer is said."""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve
from modelmerger import Inquiry, ModelCompatibilityError, Problem
from modelmerger.hooks.inquiries import asking
from modelmerger.hooks.inquiries.asking import MEMORY, SECONDS, Asked

MODULE = """
import os, signal, sys, time
from modelmerger import Figures, Problem

def where(argument):
    print("not an answer")
    return [Problem(str(os.getpid()), argument["where"], "w", "note")]

def variable(argument):
    yield Problem(str([os.environ.get(name) for name in argument["names"]]), severity="note")

def absent(argument):
    import importlib.util
    yield Problem(str([name for name in argument["names"] if not importlib.util.find_spec(name)]), severity="note")

def limits(argument):
    import resource
    return [Problem(f"{resource.getrlimit(resource.RLIMIT_CPU)[0]} {resource.getrlimit(resource.RLIMIT_DATA)[0]}", severity="note")]

def wrong(argument):
    return [Problem("it will not load"), Problem("by the way", severity="warning")]

def counting(argument):
    yield Problem("counted", severity="note")
    yield Figures("tokens per word", {"a": {"prose": 1.5}})

def endless(argument):
    yield Figures("tokens per word", {"a": {"prose": float("inf")}})

def raising(argument):
    raise LookupError("no such model")

def killed(argument):
    os.kill(os.getpid(), signal.SIGKILL)

def hanging(argument):
    with open(argument["file"] + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(argument["file"] + ".new", argument["file"])
    time.sleep(60)
"""


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Inquiry]:
    """Makes an inquiry of a function of `MODULE`, which only the paths of this process lead to."""
    name = f"acme_answers_{len(sys.modules)}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))

    def inquiry(function: str, costs: tuple[str, ...] = (), **argument: object) -> Inquiry:
        return Inquiry(f"{name}:{function}", argument, "whether it loads", costs, {"ACME": "given"})

    return inquiry


def answers(*inquiries: Inquiry, **options: bool) -> list[Problem]:
    with Asked(inquiries, **options) as asked:
        return asked.answers()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_another_process_answers_in_full(ask: Callable[..., Inquiry]) -> None:
    first, second = answers(ask("where", where="a"), ask("where", where="b"))
    assert {first.where, second.where} == {"a", "b"}
    assert (first.tensor, first.severity) == ("w", "note")
    assert len({first.message, second.message, str(os.getpid())}) == 3


def test_it_has_the_environment_of_this_one_and_what_the_inquiry_adds(
    ask: Callable[..., Inquiry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "passed")
    (found,) = answers(ask("variable", names=["OURS", "ACME"]))
    assert found.message == "['passed', 'given']"


def test_it_does_without_the_packages_of_the_inquiry(ask: Callable[..., Inquiry]) -> None:
    (found,) = answers(evolve(ask("absent", names=["wave", "shelve"]), without=("wave",)))
    assert found.message == "['wave']"


def test_it_keeps_to_limits(ask: Callable[..., Inquiry]) -> None:
    (found,) = answers(ask("limits"))
    seconds, memory = map(int, found.message.split())
    assert memory == MEMORY
    assert SECONDS <= seconds < SECONDS + 30, "what was taken before the call does not count"


def test_where_what_it_costs_is_imported_it_is_answered_here(ask: Callable[..., Inquiry]) -> None:
    here, elsewhere = (
        ask("where", ("json", "os"), where="here"),
        ask("where", ("json", "no_such_module"), where="there"),
    )
    found = {problem.where: problem.message for problem in answers(here, elsewhere)}
    assert found["here"] == str(os.getpid()) != found["there"]


@pytest.mark.parametrize("program", [None, "", "/usr/bin/blender"])
def test_where_this_program_is_no_interpreter_it_is_answered_here_with_a_note(
    ask: Callable[..., Inquiry], monkeypatch: pytest.MonkeyPatch, program: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", program)
    note, found = answers(ask("where", where="here"))
    assert note == Problem(
        "this program is no Python interpreter, so this process itself finds out whether it loads.", severity="note"
    )
    assert found.message == str(os.getpid())


def test_an_error_among_the_answers_is_raised(ask: Callable[..., Inquiry]) -> None:
    with pytest.raises(ModelCompatibilityError) as caught:
        answers(ask("wrong"))
    assert [problem.message for problem in caught.value.problems] == ["it will not load"]
    with pytest.raises(ModelCompatibilityError) as caught:
        answers(ask("wrong"), strict=True)
    assert len(caught.value.problems) == 2


def test_who_looks_from_another_thread_sees_it_without_waiting(ask: Callable[..., Inquiry], tmp_path: Path) -> None:
    raised: list[BaseException] = []

    def looking() -> None:
        while not raised:
            try:
                asked.look()
                time.sleep(0.01)
            except ModelCompatibilityError as error:
                raised.append(error)

    with Asked([ask("hanging", file=str(tmp_path / "pid")), ask("wrong")]) as asked:
        thread = threading.Thread(target=looking)
        thread.start()
        thread.join(60)
    assert [str(error) for error in raised] == ["it will not load"]


@pytest.mark.parametrize(
    ("function", "reason"),
    [("raising", "LookupError: no such model"), ("killed", "what finds it out was ended by signal 9")],
)
def test_that_there_is_no_answer_is_said(ask: Callable[..., Inquiry], function: str, reason: str) -> None:
    (found,) = answers(ask(function))
    assert found.message.startswith(f"it is not known whether it loads: {reason}")
    assert found.message.endswith("Give options.check_loading: false to merge without knowing.")
    assert found.severity == "warning"
    with (
        pytest.raises(ModelCompatibilityError, match=f"it is not known whether it loads: {reason}"),
        Asked([ask(function)], "error") as asked,
    ):
        asked.answers()


def test_what_fails_here_is_said_likewise(ask: Callable[..., Inquiry]) -> None:
    (found,) = answers(ask("raising", ("os",)))
    assert found.message.startswith("it is not known whether it loads: LookupError: no such model. Give")


def test_a_program_that_is_not_there_is_said(
    ask: Callable[..., Inquiry], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python-no-more"))
    (found,) = answers(ask("wrong"))
    assert "no process can be started: [Errno 2]" in found.message


def test_what_takes_too_long_is_ended_and_said(
    ask: Callable[..., Inquiry], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(asking, "SECONDS", 1)
    (found,) = answers(ask("hanging", file=str(tmp_path / "pid")))
    assert "took over 1 s" in found.message


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_leaving_ends_it(ask: Callable[..., Inquiry], tmp_path: Path, error: type[BaseException] | None) -> None:
    file = tmp_path / "pid"

    def leave() -> None:
        with Asked([ask("hanging", file=str(file))]):
            while not file.exists():
                time.sleep(0.01)
            if error is not None:
                raise error

    if error is None:
        leave()
    else:
        with pytest.raises(error):
            leave()
    assert gone(int(file.read_text()))


def test_figures_are_no_problems(ask: Callable[..., Inquiry]) -> None:
    with Asked([ask("counting")], "note") as asked:
        assert [problem.message for problem in asked.answers()] == ["counted"]
        assert asked.figures == {"tokens per word": {"a": {"prose": 1.5}}}


def test_figures_that_are_no_numbers_are_none_and_nothing_is_advised(ask: Callable[..., Inquiry]) -> None:
    with Asked([ask("endless")], "note") as asked:
        (problem,) = asked.answers()
    assert problem.severity == "note"
    assert problem.message == (
        "it is not known whether it loads: ValueError: 'a' has inf in 'prose', which is no finite number."
    )
    assert asked.figures == {}
