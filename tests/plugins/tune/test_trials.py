"""Which of several trials is the best, which ones no other beats, and which one was asked for."""

import random

import pytest
from modelmerger import ConfigError
from modelmerger_plugins.tune.trials import Trial, best_of, pareto_of, taken


def trial(number: int, *values: float, excess: float = 0.0, away: float = 0.0, dropped: bool = False) -> Trial:
    first, *others = values
    return Trial(number, (0.5,), {}, first, excess, first + away, 1.0, tuple(others), dropped)


def test_the_best_meets_the_constraints_and_costs_least() -> None:
    trials = [
        trial(0, 3.0),
        trial(1, 1.0, excess=0.1),
        trial(2, 2.0, away=2.0),
        trial(3, 2.5),
        trial(4, 0.1, dropped=True),
    ]
    assert best_of(trials).number == 3
    assert best_of([*trials[1:2], trial(5, 9.0, excess=0.05)]).number == 5


def test_of_equal_first_objectives_the_next_one_counts_and_then_the_earlier_trial() -> None:
    assert best_of([trial(0, 1.0, 3.0), trial(1, 1.0, 2.0), trial(2, 1.0, 2.0)]).number == 1


def test_what_is_no_number_is_never_the_best() -> None:
    assert best_of([trial(0, float("nan")), trial(1, 5.0)]).number == 1


def test_a_trial_is_unbeaten_unless_another_is_at_least_as_good_in_all_and_better_in_one() -> None:
    drawn = random.Random(0)
    trials = [
        trial(
            i,
            *(drawn.randint(0, 6) for _ in range(3)),
            excess=drawn.choice([0.0, 0.0, 0.2]),
            dropped=drawn.random() < 0.1,
        )
        for i in range(200)
    ]
    met = [one for one in trials if one.excess == 0 and not one.dropped]
    wanted = set()
    for one in met:
        worse = [all(a <= b for a, b in zip(o.values, one.values, strict=True)) and o.values != one.values for o in met]
        if not any(worse):
            wanted.add(one.number)
    assert {one.number for one in pareto_of(trials)} == wanted
    assert best_of(trials).number in wanted
    assert pareto_of([trial(0, 1.0, excess=0.1)]) == []


def test_a_step_may_be_chosen_that_was_measured() -> None:
    trials = [trial(0, 2.0), trial(1, 1.0), trial(2, 3.0, dropped=True)]
    assert taken(trials, None).number == 1
    assert taken(trials, 0).number == 0
    with pytest.raises(ConfigError, match="no step 3 to choose: the study has 0 to 2"):
        taken(trials, 3)
    with pytest.raises(ConfigError, match="step 2 was dropped"):
        taken(trials, 2)
