"""Draws of tokens: how often each comes against a float64 reference, which tokens may come at all, and what decides."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from modelmerger.validation import generation
from modelmerger.validation.generation import Chance

PEAKED = (0.03, 0.15, 0.40, 0.05, 0.12, 0.25)
"""From the likeliest on: 0.40, 0.65, 0.80, 0.92: the cut lies inside the fourth token, which crosses it and stays."""
ONE = (0.02, 0.01, 0.95, 0.02)
"""The likeliest token alone is more than the nucleus."""
DRAWS = 20_000


def reference(p: Sequence[float], temperature: float = 0.7, nucleus: float = 0.9) -> np.ndarray:
    """What scores log p come to: sharpened by the temperature, then the fewest likeliest tokens that reach the nucleus."""
    sharpened = np.array(p, dtype=np.float64) ** (1 / temperature)
    sharpened /= sharpened.sum()
    kept = np.zeros_like(sharpened)
    mass = 0.0
    for token in np.argsort(-sharpened, kind="stable"):
        kept[token] = sharpened[token]
        mass += sharpened[token]
        if mass >= nucleus:
            break
    return kept / kept.sum()


def drawn(scores: torch.Tensor, count: int = DRAWS, seed: int = 5, end: int | None = None, step: int = 0) -> list[int]:
    """Tokens for so many prompts of three tokens, all of which have the same scores."""
    ids = torch.zeros(count, 3 + step, dtype=torch.int64)
    chosen: list[int] = Chance(seed, range(count), 3, end)(ids, scores.expand(count, -1)).argmax(-1).tolist()
    return chosen


def scores_of(p: Sequence[float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Scores whose distribution at the temperature is p."""
    return (0.7 * torch.tensor(p, dtype=torch.float64).log()).to(dtype)


@pytest.mark.parametrize("p", [PEAKED, ONE, (0.25,) * 4, tuple(reversed(PEAKED))])
def test_tokens_come_as_often_as_the_nucleus_says(p: Sequence[float]) -> None:
    expected = reference(np.array(p) ** 0.7)  # a temperature of 1 leaves p
    counts = np.bincount(drawn(scores_of(p)), minlength=len(p))
    assert (counts > 0).tolist() == (expected > 0).tolist()
    deviation = np.sqrt(expected * (1 - expected) / DRAWS)
    assert (np.abs(counts / DRAWS - expected) <= 5 * deviation).all()


def test_the_nucleus_of_the_reference_is_the_one_meant() -> None:
    assert np.flatnonzero(reference(np.array(PEAKED) ** 0.7)).tolist() == [1, 2, 4, 5]
    assert np.flatnonzero(reference(np.array(ONE) ** 0.7)).tolist() == [2]


def test_the_temperature_sharpens_before_the_nucleus_is_cut() -> None:
    p = (0.1, 0.5, 0.22, 0.18)
    expected = reference(p)
    assert np.flatnonzero(expected).tolist() == [1, 2, 3]
    counts = np.bincount(drawn(torch.tensor(p).log()), minlength=len(p))
    deviation = np.sqrt(expected * (1 - expected) / DRAWS)
    assert (np.abs(counts / DRAWS - expected) <= 5 * deviation).all()


@pytest.mark.parametrize(("nucleus", "kept"), [(0.75, {0, 1, 2}), (0.5, {0, 1}), (0.25, {0}), (0.26, {0, 1})])
def test_the_nucleus_ends_with_the_token_that_reaches_it(
    monkeypatch: pytest.MonkeyPatch, nucleus: float, kept: set[int]
) -> None:
    """Four tokens of a quarter each, so that their sums are exact; the earlier ones count as the likelier ones."""
    monkeypatch.setattr(generation, "NUCLEUS", nucleus)
    assert set(drawn(torch.zeros(4), count=500)) == kept


def test_the_end_of_the_text_is_barred_from_the_first_place_alone() -> None:
    first = drawn(scores_of(ONE), end=2, step=0)
    assert set(first) == {0, 1, 3}
    assert set(drawn(scores_of(ONE), end=2, step=1)) == {2}
    assert set(drawn(scores_of(ONE), end=None)) == {2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_drawn_depends_on_seed_and_place_alone(dtype: torch.dtype) -> None:
    scores = scores_of(PEAKED, dtype)
    together = drawn(scores, 40)
    ids = torch.zeros(1, 3, dtype=torch.int64)
    apart = [int(Chance(5, [place], 3, None)(ids, scores[None]).argmax()) for place in range(40)]
    assert apart == together
    assert together == drawn(scores, 40) != drawn(scores, 40, seed=6)


def test_each_step_has_noise_of_its_own() -> None:
    chance = Chance(5, range(200), 3, None)
    scores = scores_of(PEAKED).expand(200, -1)
    first, second = (chance(torch.zeros(200, length, dtype=torch.int64), scores).argmax(-1) for length in (3, 4))
    assert 0.2 < float((first == second).double().mean()) < 0.5  # Σ p² of independent draws is 0.30


def test_what_is_outside_the_nucleus_is_impossible() -> None:
    scores = Chance(5, range(3), 3, None)(torch.zeros(3, 3, dtype=torch.int64), scores_of(PEAKED).expand(3, -1))
    assert [[math.isinf(score) for score in row] for row in scores.tolist()] == [
        [probability in (0.03, 0.05) for probability in PEAKED]
    ] * 3
