"""Searches that only try vectors, on functions whose best vectors are known: rounds, drops, and several objectives."""

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from modelmerger_plugins.tune.constraints import constraints_of
from modelmerger_plugins.tune.coordinates import Space
from modelmerger_plugins.tune.distance import OfNumbers
from modelmerger_plugins.tune.live.benches import Drop, Here, Measure, Measured
from modelmerger_plugins.tune.marks import Mark
from modelmerger_plugins.tune.measured import Goal, Lines
from modelmerger_plugins.tune.searching import Task
from modelmerger_plugins.tune.section import Objective, Search
from modelmerger_plugins.tune.study import Study
from modelmerger_plugins.tune.trials import Trial, pareto_of

pytest.importorskip("optuna")

Losses = Callable[[Sequence[float]], dict[str, float]]
METHODS = ["tpe", "cma", "nsga2"]


def searched(
    folder: Path,
    method: str,
    losses: Losses,
    *,
    bench: Callable[[Measure], Any] = Here,
    measure: Measure | None = None,
    numbers: int = 2,
    resume: bool = False,
    constraints: Sequence[str] = (),
    told: Callable[[int], None] = lambda _: None,
    **search: Any,
) -> list[Trial]:
    """The trials of a search on numbers from 0 to 1, whose losses are objectives of their own."""
    from modelmerger_plugins.tune.live.black_box import by_trials

    marks = [Mark(("options", str(i)), 0.0, 1.0, 0.5, "model") for i in range(numbers)]
    space = Space.of({}, marks, ["model"] * numbers, [{}] * numbers)
    names = list(losses([0.5] * numbers))
    lines = Lines({name: [[1]] for name in names}, dict.fromkeys(names, 1))
    held = constraints_of(constraints, names, ["m"])
    sources = {"m": dict.fromkeys(names, 1.0)}
    goals = [
        Goal(Objective(relative=False, take={name: 1.0}), held if name == names[0] else (), sources, lines)
        for name in names
    ]
    study = Study(folder, {}, resume=resume)
    search = {"penalty": 0.0, "steps": 40} | search
    away = OfNumbers(space.start)
    asked = Search(method=method, **search)
    task = Task(space, goals[0], asked, study, lambda done, _, __: told(done), away, others=goals[1:])
    try:
        by_trials(task, method, bench(measure or whole(losses)))
    finally:
        study.close()
    return task.trials


def whole(losses: Losses) -> Measure:
    return lambda vector, _: Measured(losses(vector), (), dropped=False, seconds=0.0)


def in_two(losses: Losses, factor: float = 2.0) -> Measure:
    """Half of the lines have other losses, which change as those of all lines do."""

    def measure(vector: Sequence[float], drop: Drop) -> Measured:
        found = losses(vector)
        part = {name: factor * loss for name, loss in found.items()}
        dropped = drop(0, part)
        return Measured(part if dropped else found, [part], dropped=dropped, seconds=0.0)

    return measure


@define
class Backwards:
    """All of a round at a time, the last one first: as several processes may do it."""

    _measure: Measure
    rounds: list[int] = field(factory=list)

    def measure(self, asked: Sequence[tuple[Sequence[float], Drop]]) -> Iterator[Measured]:
        if asked:
            self.rounds.append(len(asked))
        return reversed([self._measure(vector, drop) for vector, drop in reversed(asked)])


def bowl(vector: Sequence[float]) -> dict[str, float]:
    return {"one": 1 + sum((x - 0.3) ** 2 for x in vector)}


def two(vector: Sequence[float]) -> dict[str, float]:
    rest = sum((x - 0.5) ** 2 for x in vector[1:])
    return {"one": (vector[0] - 0.2) ** 2 + rest, "two": (vector[0] - 0.8) ** 2 + rest}


@pytest.mark.parametrize("method", METHODS)
def test_it_comes_near_the_best(tmp_path: Path, method: str) -> None:
    trials = searched(tmp_path, method, bowl, steps=100)
    assert len(trials) == 101
    assert trials[0].vector == (0.5, 0.5)
    assert min(trial.value for trial in trials) < 1.01
    assert all(0 <= x <= 1 for trial in trials for x in trial.vector)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_vectors_are_tried_in_whatever_order_a_round_is_measured(tmp_path: Path, method: str) -> None:
    benches: list[Backwards] = []

    def backwards(measure: Measure) -> Backwards:
        benches.append(Backwards(measure))
        return benches[-1]

    one = searched(tmp_path / "one", method, bowl, measure=in_two(bowl), numbers=3)
    other = searched(tmp_path / "other", method, bowl, measure=in_two(bowl), numbers=3, bench=backwards)
    assert one == other
    rows = [(folder / "study.jsonl").read_bytes() for folder in (tmp_path / "one", tmp_path / "other")]
    assert rows[0] == rows[1]
    assert sum(benches[0].rounds) == 41
    assert max(benches[0].rounds) >= 4
    again = searched(tmp_path / "again", method, bowl, measure=in_two(bowl), numbers=3, seed=1)
    assert [trial.vector for trial in again][:1] == [trial.vector for trial in one][:1]
    assert [trial.vector for trial in again] != [trial.vector for trial in one]


def test_what_is_clearly_worse_is_dropped_and_the_best_is_not(tmp_path: Path) -> None:
    trials = searched(tmp_path, "tpe", bowl, measure=in_two(bowl), steps=60)
    dropped = [trial for trial in trials if trial.dropped]
    assert 5 < len(dropped) < 40
    for trial in dropped:  # losses are estimated from the part: exactly, since it changes as the whole does
        assert trial.losses == pytest.approx(bowl(trial.vector))
        before = [other.value for other in trials[: trial.number] if not other.dropped]
        assert len(before) >= 10
        assert trial.value > sorted(before)[(len(before) - 5) // 2]  # at most a round of 4 was not known yet
    best = min(trials, key=lambda one: one.value)
    assert not best.dropped
    assert not any(one.dropped for one in searched(tmp_path / "b", "tpe", bowl, measure=in_two(bowl), prune=False))


@pytest.mark.parametrize("method", ["cma", "nsga2"])
def test_a_method_that_ranks_whole_generations_drops_nothing(tmp_path: Path, method: str) -> None:
    assert not any(one.dropped for one in searched(tmp_path, method, bowl, measure=in_two(bowl)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("at", [1, 13, 30])
def test_a_search_that_was_ended_goes_on_to_the_same_end(tmp_path: Path, method: str, at: int) -> None:
    wanted = searched(tmp_path / "whole", method, bowl, measure=in_two(bowl))

    class EndedError(Exception):
        pass

    def ending(done: int) -> None:
        if done == at:
            raise EndedError

    with pytest.raises(EndedError):
        searched(tmp_path / "ended", method, bowl, measure=in_two(bowl), told=ending)
    measured: list[Sequence[float]] = []

    def counted(vector: Sequence[float], drop: Drop) -> Measured:
        measured.append(vector)
        return in_two(bowl)(vector, drop)

    found = searched(tmp_path / "ended", method, bowl, measure=counted, resume=True)
    assert found == wanted
    assert len(measured) == 41 - at
    files = [tmp_path / name / "study.jsonl" for name in ("whole", "ended")]
    assert files[0].read_bytes() == files[1].read_bytes()


def volume(trials: Sequence[Trial]) -> float:
    """The area that two objectives leave below 1, beyond the trials that none beats."""
    area, last = 0.0, 1.0
    for one in sorted(pareto_of(trials), key=lambda one: one.values):
        area += max(0.0, 1 - one.values[0]) * max(0.0, last - one.values[1])
        last = min(last, one.values[1])
    return area


@pytest.mark.parametrize("method", ["nsga2", "tpe"])
def test_several_objectives_are_made_small_together(tmp_path: Path, method: str) -> None:
    trials = searched(tmp_path, method, two, numbers=4, steps=200)
    front = pareto_of(trials)
    assert len(front) > 5
    assert all(0.1 < one.vector[0] < 0.9 for one in front)
    assert min(one.values[0] for one in front) < 0.03 > min(one.values[1] for one in front)
    drawn = random.Random(0)
    vectors = [[drawn.random() for _ in range(4)] for _ in range(201)]
    blind = [
        Trial(i, tuple(v), {}, two(v)["one"], 0.0, two(v)["one"], 0.0, (two(v)["two"],)) for i, v in enumerate(vectors)
    ]
    assert volume(trials) > volume(blind)


def test_what_misses_constraints_is_no_part_of_the_front(tmp_path: Path) -> None:
    trials = searched(tmp_path, "nsga2", two, steps=100, constraints=["loss(two) <= 0.1"])
    front = pareto_of(trials)
    assert front
    assert all(one.values[1] <= 0.1 for one in front)
    assert any(one.excess > 0 for one in trials)
    assert sum(one.excess == 0 for one in trials[50:]) > sum(one.excess == 0 for one in trials[:50])


def test_one_objective_keeps_within_its_constraints(tmp_path: Path) -> None:
    trials = searched(tmp_path, "tpe", bowl, steps=80, constraints=["loss(one) >= 1.02"])
    best = min((one for one in trials if one.excess == 0), key=lambda one: one.value)
    assert 1.02 <= best.value < 1.04


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_is_no_number_ends_no_search(tmp_path: Path, method: str) -> None:
    def broken(vector: Sequence[float]) -> dict[str, float]:
        return bowl(vector) if vector[0] < 0.6 else {"one": math.nan}

    trials = searched(tmp_path, method, broken)
    assert len(trials) == 41
    assert any(math.isnan(one.value) for one in trials)
    rows = (tmp_path / "study.jsonl").read_text().splitlines()
    assert len(rows) == 42
    assert all(json.loads(row) for row in rows)


@pytest.mark.parametrize("method", METHODS)
def test_a_single_number_is_searched_too(tmp_path: Path, method: str) -> None:
    trials = searched(tmp_path, method, bowl, numbers=1)
    assert min(trial.value for trial in trials) < 1.01
