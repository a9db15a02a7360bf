"""What every built-in strategy answers at the edges: an error with the values, or a result that is stated here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from modelmerger import MergeError
from modelmerger.hooks.providers import BUILT_IN
from modelmerger.hooks.registry import ALLOW, Registry
from modelmerger.testing import merge_in_memory

Tensors = dict[str, torch.Tensor]
Options = Mapping[str, Any]
ADDING: dict[str, Options] = {
    "task_arithmetic": {},
    "lines": {"growth": 0, "scaling_factor": 1},
    "dare_linear": {"density": 1, "scaling_factor": 1},
    "della_linear": {"density": 1, "scaling_factor": 1},
    "breadcrumbs": {"density": 1, "scaling_factor": 1},
    "breadcrumbs_ties": {"density": 1, "scaling_factor": 1},
    "consensus": {"scaling_factor": 1},
}
"""Equal models give their sum."""
AVERAGING: dict[str, Options] = {name: {"density": 1, "scaling_factor": 1} for name in ("ties", "dare_ties", "della")}
SPECTRAL: dict[str, Options] = {name: {"scaling_factor": 1} for name in ("tsv_m", "iso_c", "boost")}
TASK_VECTORS = ADDING | AVERAGING | SPECTRAL
WITH_DENSITY = sorted(name for name, options in TASK_VECTORS.items() if "density" in options)
PAIRS = ("slerp", "nuslerp")
MEANS = ("multislerp", "karcher", "geometric_median")
ALONE = ("nearswap", "arcee_fusion", "passthrough")
UNWEIGHTED = ("model_stock", "sce", "ram", "ramplus_tl", *ALONE)
ALL = sorted([*TASK_VECTORS, *PAIRS, *MEANS, *UNWEIGHTED, "weighted", "sequential"])
BASELESS = ("weighted", "sequential", "slerp", "karcher", "geometric_median", "passthrough")
NO_POINT = r"the weights 1 and -\S+ give no point between"
NO_MEAN = r"the weights \[1\.0, -\S+\] give no (mean|median)"
UNWANTED = r"does not weigh models"


def numbers(seed: int) -> Tensors:
    """Multiples of 1/64 that are not 0, so that sums are exact."""
    generator = torch.Generator().manual_seed(seed)
    made = {"model.layers.0.w": (8, 6), "norm": (5,), "one": (1,)}
    return {n: torch.randint(1, 99, s, generator=generator) / 64 * torch.randn(s, generator=generator).sign() for n, s in made.items()}  # fmt: skip


BASE, TAUS = numbers(0), [numbers(1), numbers(2)]
ZERO = {name: torch.zeros_like(value) for name, value in BASE.items()}


def plus(*terms: Tensors) -> Tensors:
    return {name: sum((term[name] for term in terms), torch.tensor(0.0)) for name in BASE}


def times(factor: float, tensors: Tensors) -> Tensors:
    return {name: factor * value for name, value in tensors.items()}


MODELS = [plus(BASE, tau) for tau in TAUS]


def merged(strategy: str, models: Sequence[Tensors], base: Tensors = BASE, weights: Any = None, **more: Any) -> Tensors:
    options = {**TASK_VECTORS.get(strategy, {}), **more}
    return merge_in_memory(strategy, models, None if strategy in BASELESS else base, weights, options=options)


def assert_same(found: Tensors, wanted: Tensors) -> None:
    for name, value in wanted.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-5, atol=1e-5, msg=lambda told, name=name: f"{name}: {told}"
        )


def refused(said: str) -> Any:
    return pytest.raises(MergeError, match=said)


def test_every_built_in_strategy_is_asked() -> None:
    found = Registry.installed({ALLOW: ""}).providers
    names = {one.name for one in found if one.kind == "strategy" and one.distribution == BUILT_IN}
    assert sorted(names - {"stack"}) == ALL  # which merges no numbers


@pytest.mark.parametrize("weight", [-0.5, -1.0])
@pytest.mark.parametrize("strategy", ALL)
def test_a_negative_weight_and_weights_that_add_up_to_zero(strategy: str, weight: float) -> None:
    """With task vectors it takes away: the model as if mirrored at the base, with the weight's size."""
    said = {**dict.fromkeys(PAIRS, NO_POINT), **dict.fromkeys(MEANS, NO_MEAN), **dict.fromkeys(UNWEIGHTED, UNWANTED)}
    if strategy == "weighted" and weight == -1:
        said["weighted"] = r"the weights \[1\.0, -1\.0\] add up to 0, which nothing can be divided by"
    models = MODELS[:1] if strategy in ALONE else MODELS
    weights = [weight] if strategy in ALONE else [1, weight]
    if strategy in said:
        with refused(said[strategy]):
            merged(strategy, models, weights=weights)
    elif strategy == "weighted":
        assert_same(merged(strategy, MODELS, weights=weights), plus(times(2, MODELS[0]), times(-1, MODELS[1])))
    elif strategy == "sequential":
        wanted = plus(times(1 - weight, MODELS[0]), times(weight, MODELS[1]))
        assert_same(merged(strategy, MODELS, weights=weights), wanted)
    else:
        for options in ({}, {"normalize_weights": True}) if strategy in AVERAGING else ({},):
            mirrored = [MODELS[0], plus(BASE, times(-1, TAUS[1]))]
            wanted = merged(strategy, mirrored, weights=[1, -weight], **options)
            assert_same(merged(strategy, MODELS, weights=weights, **options), wanted)


@pytest.mark.parametrize("strategy", [*WITH_DENSITY, "sce"])
def test_a_density_of_0(strategy: str) -> None:
    if strategy == "sce":  # of the elements that vary, none
        assert_same(merged(strategy, MODELS, density=0), BASE)
        return
    with refused(r"options\.density: must be in \(0, 1\], got 0"):
        merged(strategy, MODELS, density=0)


@pytest.mark.parametrize("strategy", ALL)
def test_one_model(strategy: str) -> None:
    """A density of 1 leaves nothing out."""
    if strategy in PAIRS or strategy == "model_stock":
        with refused(r"merges (exactly|at least) two models, 1 given"):
            merged(strategy, MODELS[:1])
        return
    found = merged(strategy, MODELS[:1], **({"t": 0.25} if strategy == "nearswap" else {}))
    if strategy == "nearswap":
        assert_same(found, {name: BASE[name] + TAUS[0][name].clamp(-0.25, 0.25) for name in BASE})
    elif strategy == "arcee_fusion":
        for name in BASE:
            changed = found[name] != BASE[name]
            assert changed.any() or name != "one"
            assert torch.equal(found[name][changed], MODELS[0][name][changed])
    elif strategy in ("iso_c", "boost"):
        name = "model.layers.0.w"
        u, s, v = torch.linalg.svd(TAUS[0][name].double(), full_matrices=False)
        least = s[int((s.cumsum(0) < s.sum() / 2).sum())]
        values = s.mean().expand_as(s) if strategy == "iso_c" else s.clamp(min=least)
        assert_same(found, {**MODELS[0], name: (BASE[name] + (u * values) @ v).float()})
        whole = merged(strategy, MODELS[:1], scaling_factor="matched")
        torch.testing.assert_close((whole[name] - BASE[name]).norm(), TAUS[0][name].norm())
    else:
        assert_same(found, MODELS[0])


@pytest.mark.parametrize("strategy", sorted(set(ALL) - set(ALONE)))
def test_equal_models(strategy: str) -> None:
    found = merged(strategy, [MODELS[0]] * 2)
    if strategy in ADDING:
        assert_same(found, plus(BASE, times(2, TAUS[0])))
    elif strategy in SPECTRAL:  # as one model of the doubled task vector, of which tsv_m keeps the stronger half
        name = "model.layers.0.w"
        u, s, v = torch.linalg.svd(TAUS[0][name].double(), full_matrices=False)
        least = s[int((s.cumsum(0) < s.sum() / 2).sum())]
        values = {
            "tsv_m": s * (torch.arange(6) < 3),
            "iso_c": 2 * s.mean().expand_as(s),
            "boost": 2 * s.clamp(min=least),
        }
        assert_same(found, {**MODELS[0], name: (BASE[name] + (u * values[strategy]) @ v).float()})
    else:
        assert_same(found, MODELS[0])


CANCELLING = {
    "slerp": "the tensors point in opposite directions",
    "nuslerp": "opposite directions",
    "multislerp": "cancel",
    "karcher": "cancel",
}
SPECIAL: dict[str, Callable[[], Tensors]] = {
    "sequential": lambda: times(-1, TAUS[0]),  # the last model counts with its full weight
    "sce": lambda: {name: value.abs() for name, value in TAUS[0].items()},  # a sum of 0 counts as positive
}


@pytest.mark.parametrize("strategy", sorted(set(ALL) - set(ALONE)))
def test_opposite_models(strategy: str) -> None:
    """Also where there is no base, as that is 0."""
    models = [TAUS[0], times(-1, TAUS[0])]
    if strategy in CANCELLING:
        with refused(CANCELLING[strategy]):
            merged(strategy, models, ZERO)
        return
    assert_same(merged(strategy, models, ZERO), SPECIAL.get(strategy, lambda: ZERO)())
    if strategy in TASK_VECTORS and strategy not in ("task_arithmetic", "lines"):
        assert_same(merged(strategy, models, ZERO, scaling_factor="matched"), ZERO)


@pytest.mark.parametrize("strategy", ["ties", "breadcrumbs_ties", "dare_ties", "della", "breadcrumbs", "dare_linear"])
def test_opposite_models_leave_nothing_whatever_their_weight(strategy: str) -> None:
    """1/3 times a number is rounded, and the sum of two such products must not be what rounding left of one of them."""
    models, kept = [TAUS[0], times(-1, TAUS[0])], {"density": 1.0, "scaling_factor": 1.0}
    found = merge_in_memory(strategy, models, ZERO, weights=[1 / 3, 1 / 3], options=kept)
    assert all(not found[name].any() for name in ZERO)


@pytest.mark.parametrize("strategy", ALL)
def test_models_that_learned_nothing(strategy: str) -> None:
    models = [BASE] if strategy in ALONE else [BASE, BASE]
    found = merged(strategy, models)
    assert_same(found, BASE)
    if strategy in TASK_VECTORS and strategy != "lines":
        found = merged(strategy, models, scaling_factor="matched")
        assert all(torch.equal(found[name], BASE[name]) for name in BASE)


@pytest.mark.parametrize("strategy", sorted(set(ALL) - set(ALONE) - set(BASELESS)))
def test_a_model_that_learned_nothing_beside_one_that_did(strategy: str) -> None:
    found = merged(strategy, [MODELS[0], BASE])
    half = plus(BASE, times(0.5, TAUS[0]))
    wanted = {
        "model_stock": BASE,  # a cosine of 0
        "multislerp": half,
        "nuslerp": half,
        "consensus": BASE,  # only one has a change
    }.get(strategy, MODELS[0])
    if strategy not in ("ramplus_tl", *SPECTRAL):
        assert_same(found, wanted)
    assert all(value.isfinite().all() for value in found.values())
