"""The elementwise strategies on task vectors: against float64 references, and what each promises at the edges."""

import functools
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from blocks import set_block
from hypothesis import given, settings
from hypothesis import strategies as st
from modelmerger import ConfigError, MergeConfig
from modelmerger.engine import measuring
from modelmerger.planning import slices
from modelmerger.testing import Planned, merge_in_memory, plan_in_memory
from modelmerger_strategies.task_vectors import family, magnitudes
from modelmerger_strategies.task_vectors.merging import elected

from tests.strategies import task_vector_references as references

Tensors = dict[str, torch.Tensor]
Options = Mapping[str, Any]
ELECTING = {"ties", "dare_ties", "della", "breadcrumbs_ties"}
AVERAGING = {"ties", "dare_ties", "della"}
DROPPING = {"dare_linear", "dare_ties", "della", "della_linear"}
TRIMMING = {"ties", "breadcrumbs", "breadcrumbs_ties"}
ALL = sorted(ELECTING | DROPPING | TRIMMING | {"consensus"})
DENSITY = {
    "ties": 0.2,
    "dare_linear": 0.9,
    "dare_ties": 0.9,
    "della": 0.7,
    "della_linear": 0.7,
    "breadcrumbs": 0.9,
    "breadcrumbs_ties": 0.9,
}
SHAPES = {
    "model.layers.0.w": (40, 30),
    "model.layers.1.w": (9, 1),
    "norm": (257,),
    "scalar": (),
    "empty": (0, 3),
    "deep": (3, 4, 5, 2),
}
WHOLE = {name: {"density": 1.0} for name in ELECTING | DROPPING | TRIMMING} | {"consensus": {}}
"""Options with which nothing is left out of a model that is alone."""


def model(seed: int, near: Tensors | None = None, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    made = {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    return {name: ((near[name].float() if near else 0) + value).to(dtype) for name, value in made.items()}


BASE = model(0)
MODELS = [model(seed, BASE, scale) for seed, scale in ((1, 0.05), (2, 0.2), (3, 0.1))]
WEIGHTS = [1.0, 0.5, -0.75]


def expected(
    strategy: str,
    merge: Planned,
    models: Sequence[Tensors],
    base: Tensors,
    weights: Sequence[float],
    told: Sequence[Options],
    options: Options,
) -> dict[str, np.ndarray]:
    """As the reference has it. told: of each model, over the options."""
    made = {}
    for name, of_base in base.items():
        start = of_base.double().numpy()
        if not start.size:
            made[name] = start
            continue
        live = [i for i, weight in enumerate(weights) if weight != 0]
        taus = [models[i][name].double().numpy() - start for i in live]
        shares = [weights[i] for i in live]

        def number(key: str, default: float, which: int) -> float:
            return told[which].get(key, options.get(key, default))

        if strategy == "consensus":
            merged = references.consensus(
                taus, shares, options.get("mask_factor", 0.4), options.get("agreeing_models", 2)
            )
        else:
            kept = []
            for i, tau in zip(live, taus, strict=True):
                density = number("density", DENSITY[strategy], i)
                if strategy in TRIMMING:
                    gamma = 0.0 if strategy == "ties" else number("gamma", 0.01, i)
                    kept.append(references.middle(tau, density, gamma))
                    continue
                epsilon = number("epsilon", 0.07, i)
                chances = references.keep_probabilities(tau, density, epsilon) if "della" in strategy else density
                numbers = merge.random(name, i).double().numpy()
                kept.append(references.dropped(tau, chances, numbers, options.get("rescale", True)))
            combine = references.elected if strategy in ELECTING else references.added
            merged = combine(kept, shares, options.get("normalize_weights", strategy in AVERAGING))
        factor = options.get("scaling_factor", "matched")
        made[name] = start + (references.matched(merged, taus, shares) if factor == "matched" else factor * merged)
    return made


def assert_right(
    strategy: str,
    options: Options,
    told: Sequence[Options] = ({}, {}, {}),
    weights: Sequence[float] = WEIGHTS,
    models: Sequence[Tensors] = MODELS,
    **how: Any,
) -> None:
    merge = plan_in_memory(strategy, models, BASE, list(weights), list(told), options)
    merged = merge.merge(**how)
    for name, value in expected(strategy, merge, models, BASE, weights, told, options).items():
        np.testing.assert_allclose(
            merged[name].double().numpy(), value, rtol=2**-23, atol=1e-12, err_msg=f"{strategy} {name}"
        )


CASES: list[tuple[str, Options, Sequence[Options]]] = [
    *[(name, {}, [{}] * 3) for name in ALL],
    *[(name, {"scaling_factor": 0.7}, [{}] * 3) for name in ALL],
    *[(name, {"normalize_weights": name not in AVERAGING}, [{}] * 3) for name in sorted(ELECTING | DROPPING | TRIMMING)],
    *[(name, {"density": 0.5, "scaling_factor": 1.0}, [{}, {"density": 0.05}, {"density": 1.0}]) for name in ("ties", "dare_linear", "dare_ties")],
    *[(name, {"rescale": rescale, "density": 0.4, "scaling_factor": factor}, [{}] * 3) for name in sorted(DROPPING) for rescale in (False, "l1") for factor in (1.0, "matched")],
    *[(name, {"density": 0.5}, [{"epsilon": 0.3}, {"density": 0.8}, {"density": 1.0}]) for name in ("della", "della_linear")],
    *[(name, {"density": 0.3, "gamma": 0.1, "scaling_factor": 1.0}, [{}, {"gamma": 0.9}, {"density": 1.0}]) for name in ("breadcrumbs", "breadcrumbs_ties")],
    ("consensus", {"mask_factor": 0.9, "agreeing_models": 3}, [{}] * 3),
    ("consensus", {"mask_factor": 0.2, "agreeing_models": 1, "scaling_factor": 1.0}, [{}] * 3),
]  # fmt: skip


@pytest.mark.parametrize(("strategy", "options", "told"), CASES, ids=str)
def test_merges_are_those_of_the_paper(strategy: str, options: Options, told: Sequence[Options]) -> None:
    assert_right(strategy, options, told)


@pytest.mark.parametrize("strategy", ALL)
def test_slices_blocks_and_workers_do_not_matter(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelmerger.planning.measured.MEASURED", 500)
    monkeypatch.setattr(slices, "MEASURED", 500)
    monkeypatch.setattr(measuring, "BLOCKS_A_UNIT", 2)
    merge = plan_in_memory(strategy, MODELS, BASE, WEIGHTS)
    whole = merge.merge()
    set_block(monkeypatch, 1 << 10)
    monkeypatch.setattr(family, "PIECE", 7)
    monkeypatch.setattr(magnitudes, "PIECE", 5)
    again = plan_in_memory(strategy, MODELS, BASE, WEIGHTS)
    cut = again.merge(slice_elements=77, workers=3, order=lambda units: list(reversed(units)))
    assert all(torch.equal(whole[name], cut[name]) for name in SHAPES)
    assert_right(strategy, {}, slice_elements=100)


@pytest.mark.parametrize("strategy", sorted(TRIMMING))
@given(
    values=st.lists(st.sampled_from([0.0, 1.0, -1.0, 1.5, 2.0, -2.0, 1e-30, 3e38, 1e-42]) | st.floats(-1, 1, width=32), min_size=1, max_size=40),
    density=st.floats(0.01, 1),
    gamma=st.floats(0, 1),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_thresholds_are_exact_whatever_the_magnitudes(
    strategy: str, values: list[float], density: float, gamma: float
) -> None:
    """A base of zeros, so that the task vector is the model itself, and one model, so that nothing else matters."""
    tau = torch.tensor(values)
    options = {"density": density, "scaling_factor": 1.0} | ({"gamma": gamma} if strategy != "ties" else {})
    merged = merge_in_memory(strategy, [{"w": tau}], {"w": torch.zeros_like(tau)}, options=options)["w"]
    wanted = references.middle(tau.double().numpy(), density, 0.0 if strategy == "ties" else gamma)
    np.testing.assert_array_equal(merged.numpy(), wanted.astype(np.float32))


def test_magnitudes_are_compared_as_float32() -> None:
    """Differences in float64 that are one number in float32 are kept or dropped together: three, halfway to even."""
    step = 2.0**-24
    tau = torch.tensor([1.0, 1 + step, 1 + 0.9 * step, 1 - 0.2 * step, 1 - 0.6 * step, 0.5], dtype=torch.float64)
    options = {"density": 0.5, "scaling_factor": 1.0}
    merged = merge_in_memory("ties", [{"w": tau}], {"w": torch.zeros_like(tau)}, options=options)["w"]
    assert merged.tolist() == references.middle(tau.numpy(), 0.5).tolist()
    assert np.count_nonzero(merged.numpy()) == 4


@pytest.mark.parametrize("strategy", ALL)
def test_inputs_of_16_bits_are_merged_in_float32(strategy: str) -> None:
    base = {"w": BASE["model.layers.0.w"].bfloat16()}
    models = [{"w": one["model.layers.0.w"].bfloat16()} for one in MODELS]
    merge = plan_in_memory(strategy, models, base, WEIGHTS, options={"scaling_factor": 1.0})
    wanted = expected(strategy, merge, models, base, WEIGHTS, [{}] * 3, {"scaling_factor": 1.0})["w"]
    merged = merge.merge()["w"]
    assert merged.dtype == torch.bfloat16
    off = np.abs(merged.double().numpy() - wanted) > np.abs(wanted) * 2**-8
    assert off.mean() < 0.005  # where sums cancel to the last bit, a sign may be elected otherwise


@pytest.mark.parametrize("strategy", ALL)
def test_one_model_alone_keeps_its_length(strategy: str) -> None:
    merged = merge_in_memory(strategy, MODELS[:1], BASE, [0.5])
    for name in SHAPES:
        length = (merged[name].double() - BASE[name].double()).norm()
        torch.testing.assert_close(
            length, 0.5 * (MODELS[0][name].double() - BASE[name].double()).norm(), rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize("strategy", ALL)
def test_one_model_of_which_nothing_is_left_out_is_itself(strategy: str) -> None:
    for options in (WHOLE[strategy], {**WHOLE[strategy], "scaling_factor": 1.0}):
        merged = merge_in_memory(strategy, MODELS[:1], BASE, options=options)
        for name in SHAPES:
            torch.testing.assert_close(merged[name], MODELS[0][name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("strategy", sorted(ELECTING))
def test_equal_models_are_averaged_to_themselves(strategy: str) -> None:
    options = {**WHOLE[strategy], "scaling_factor": 1.0, "normalize_weights": True}
    merged = merge_in_memory(strategy, [MODELS[0]] * 4, BASE, [1, 0.5, 0.25, 2], options=options)
    for name in SHAPES:
        torch.testing.assert_close(merged[name], MODELS[0][name], rtol=1e-6, atol=1e-7)


def test_of_equal_models_consensus_leaves_the_sum_or_nothing() -> None:
    """Each is half of what the other three are together, and less than 0.4 of what more are."""
    for count, left in ((2, 2.0), (3, 3.0), (4, 0.0)):
        merged = merge_in_memory("consensus", [MODELS[0]] * count, BASE, options={"scaling_factor": 1.0})
        for name in SHAPES:
            wanted = BASE[name] + left * (MODELS[0][name] - BASE[name])
            torch.testing.assert_close(merged[name], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize("factor", [1.0, "matched"])
def test_opposite_models_leave_the_base(strategy: str, factor: Any) -> None:
    """Exactly so where nothing is dropped by chance, and with `matched`, as the plain sum is zero."""
    base = {name: torch.zeros_like(value) for name, value in BASE.items()}
    other = {name: -value for name, value in MODELS[0].items()}
    if factor == 1.0 and strategy in DROPPING:
        options: Options = {"scaling_factor": 1.0, "density": 1.0}
    else:
        options = {"scaling_factor": factor}
    merged = merge_in_memory(strategy, [MODELS[0], other], base, options=options)
    assert all(torch.equal(merged[name], base[name]) for name in SHAPES)


@pytest.mark.parametrize("strategy", ALL)
@pytest.mark.parametrize("factor", [1.0, "matched"])
def test_models_that_learned_nothing_leave_the_base(strategy: str, factor: Any) -> None:
    merged = merge_in_memory(strategy, [BASE, BASE], BASE, options={"scaling_factor": factor})
    assert all(torch.equal(merged[name], BASE[name]) for name in SHAPES)


@pytest.mark.parametrize("strategy", ALL)
def test_a_negative_weight_takes_away_also_where_weights_are_normalized(strategy: str) -> None:
    options = {**WHOLE[strategy], "scaling_factor": 1.0}
    options |= {"normalize_weights": True} if strategy != "consensus" else {"agreeing_models": 1}
    merged = merge_in_memory(strategy, MODELS[:1], BASE, [-1], options=options)
    for name in SHAPES:
        torch.testing.assert_close(merged[name], 2 * BASE[name] - MODELS[0][name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("strategy", sorted(ELECTING | DROPPING | TRIMMING))
def test_weights_that_add_up_to_zero_are_normalized_by_their_sizes(strategy: str) -> None:
    assert_right(strategy, {"normalize_weights": True, "scaling_factor": 1.0}, [{}, {}], [1.0, -1.0], MODELS[:2])


@pytest.mark.parametrize("strategy", ALL)
def test_models_of_weight_0_are_not_there(strategy: str) -> None:
    assert_right(strategy, {}, weights=[0.0, 0.0, 0.5])
    merged = merge_in_memory(strategy, MODELS, BASE, [0, 0, 0])
    assert all(torch.equal(merged[name], BASE[name]) for name in SHAPES)


@pytest.mark.parametrize("strategy", sorted(ELECTING | DROPPING | TRIMMING))
def test_a_density_of_0_is_refused_everywhere(strategy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MergeConfig(
            strategy=strategy,
            base_model="./c",
            models=[{"path": "./a", "density": 0}, {"path": "./b", "density": [1, 1.5]}],
            options={"density": {"*": 0}},
        )
    assert sorted(caught.value.lines()) == [
        "models[0].density: must be in (0, 1], got 0.0",
        "models[1].density: must be in (0, 1], got 1.5",
        "options.density: '*' must be in (0, 1], got 0.0",
    ]


@pytest.mark.parametrize("strategy", ["della", "della_linear"])
def test_probabilities_outside_of_0_to_1_are_refused(strategy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MergeConfig(
            strategy=strategy,
            base_model="./c",
            models=[{"path": "./a", "density": 0.95}, {"path": "./b", "epsilon": 0.4}, {"path": "./d", "density": 1}],
        )
    assert caught.value.lines() == [
        "models[0]: density 0.95 and epsilon 0.07 give probabilities from 0.88 to 1.02, and they must lie between 0 and 1. Change one of them; density: 1 keeps all.",
        "models[1]: density 0.7 and epsilon 0.4 give probabilities from 0.3 to 1.1, and they must lie between 0 and 1. Change one of them; density: 1 keeps all.",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"models: model\.layers\.1\.w: density 0\.98 and epsilon 0\.07 give"):
        merge_in_memory(strategy, MODELS[:1], BASE, options={"density": [0.5, 0.98]})


@pytest.mark.parametrize("strategy", ALL)
def test_the_scale_varies_by_tensor_or_is_a_word(strategy: str) -> None:
    varied = merge_in_memory(
        strategy, MODELS, BASE, WEIGHTS, options={"scaling_factor": {"*layers.0*": 0.5, "default": 1}}
    )
    for factor, name in ((0.5, "model.layers.0.w"), (1.0, "norm")):
        alone = merge_in_memory(strategy, MODELS, BASE, WEIGHTS, options={"scaling_factor": factor})[name]
        assert torch.equal(varied[name], alone)
    with pytest.raises(
        ConfigError, match=r"options\.scaling_factor: must be a number or .* or 'matched', got 'machted'"
    ):
        MergeConfig(
            strategy=strategy, base_model="./c", models=[{"path": "./a"}], options={"scaling_factor": "machted"}
        )


@pytest.mark.parametrize("strategy", sorted(DROPPING))
def test_what_is_dropped_at_random_is_right_in_the_mean(strategy: str) -> None:
    """Over many equal rows, each of which is dropped by other random numbers."""
    options = {"density": 0.3, "scaling_factor": 1.0, "normalize_weights": False} | (
        {"epsilon": 0.25} if "della" in strategy else {}
    )
    row, rows = torch.randn(10, generator=torch.Generator().manual_seed(7), dtype=torch.float64), 4000
    tau = row.repeat(rows, 1)
    merged = merge_in_memory(strategy, [{"w": tau}], {"w": torch.zeros_like(tau)}, options=options)["w"]
    chances = references.keep_probabilities(row.numpy(), 0.3, 0.25 if "della" in strategy else 0.0)
    kept = merged.ne(0).double().mean(0).numpy()
    assert (np.abs(kept - chances) < 5 * np.sqrt(chances * (1 - chances) / rows)).all()
    spread = np.abs(row.numpy()) * np.sqrt((1 / chances - 1) / rows)
    assert (np.abs(merged.mean(0).numpy() - row.numpy()) < 5 * spread).all()
    if "della" in strategy:
        assert sorted(chances) == pytest.approx(np.linspace(0.05, 0.55, 10))
        assert np.argsort(chances).tolist() == row.abs().argsort().tolist()


@pytest.mark.parametrize("strategy", ALL)
def test_the_models_are_read_as_often_as_the_options_need(strategy: str) -> None:
    """Once to merge them, once for a threshold, once for sums of magnitudes, once for norms."""
    thinned = {} if strategy == "consensus" else {"density": 0.5}
    once = sum(tensor.nbytes for one in (BASE, *MODELS) for tensor in one.values())

    def reads(**options: Any) -> float:
        return plan_in_memory(strategy, MODELS, BASE, options={"scaling_factor": 1.0, **options}).plan.bytes_read / once

    thresholds = 1 if strategy in TRIMMING else 0
    assert reads(**WHOLE[strategy]) == 1
    assert reads(**thinned) == 1 + thresholds
    assert reads(**thinned, scaling_factor="matched") == 2 + thresholds
    if strategy in DROPPING:
        assert reads(**thinned, rescale="l1") == 2
        assert reads(**thinned, rescale="l1", scaling_factor="matched") == 3


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weights", [[1.0], [-0.3], [1 / 6, 1 / 3, 0.5], [1.0, -0.7, 0.2, 1.0]])
def test_the_mean_of_those_that_agree_has_the_bits_of_its_formula(weights: list[float], normalize: bool) -> None:
    """Whatever memory is used again: by numpy in float32, every product and sum rounded in the order of the models."""
    numbers = np.random.default_rng(5).integers(-3, 4, (len(weights), 1000)).astype("f4") * np.float32(0.1)
    numbers[:, ::7] *= -0.0
    tensors = [torch.from_numpy(row.copy()) for row in numbers]
    kept = [tensor if number % 2 else tensor.clone() for number, tensor in enumerate(tensors)]
    options = SimpleNamespace(normalize_weights=normalize)
    told: dict[str, Any] = {"options": options, "model_options": [], "shape": (1000,), "inputs": [], "measurements": []}
    out = torch.empty(1000)

    elected(family.Slice(**told, tensors=tensors, weights=weights, random=lambda *_: out), kept, out)

    weighted = [row * np.float32(weight) for row, weight in zip(numbers, weights, strict=True)]
    sign = np.sign(functools.reduce(np.add, weighted))
    agreeing = [(own * sign > 0).astype("f4") for own in weighted]
    due = functools.reduce(np.add, [own * each for own, each in zip(weighted, agreeing, strict=True)])
    if normalize:
        shares = [each * np.float32(abs(weight)) for each, weight in zip(agreeing, weights, strict=True)]
        due = due / np.maximum(functools.reduce(np.add, shares), np.float32(min(map(abs, weights))))
    np.testing.assert_array_equal(out.numpy().view("i4"), due.view("i4"))
    for tensor, row in zip(tensors, numbers, strict=True):
        np.testing.assert_array_equal(tensor.numpy().view("i4"), row.view("i4"))
