"""SLERP: angles from 0 to π against 50 digits of mpmath, the order of its exceptions, and where t comes from."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import modelmerger
import mpmath
import numpy as np
import pytest
import torch
from conftest import write_model
from hypothesis import example, given, settings
from hypothesis import strategies as st
from modelmerger import ConfigError, MergeConfig, ModelCompatibilityError, ModelMerger, NumericError
from modelmerger.testing import merge_in_memory, plan_in_memory

from tests.strategies.references import half_ulp

mpmath.mp.dps = 50


def reference(first: torch.Tensor, second: torch.Tensor, t: float, normalize: bool) -> tuple[np.ndarray, np.ndarray]:
    """The result and Σ|cᵢθᵢ|, both from 50 digits, as float64."""
    u, v = ([mpmath.mpf(x) for x in tensor.double().tolist()] for tensor in (first, second))
    norms = [mpmath.sqrt(mpmath.fsum(x * x for x in vector)) for vector in (u, v)]
    cosine = mpmath.fsum(x * y for x, y in zip(u, v, strict=True)) / (norms[0] * norms[1])
    angle = mpmath.acos(min(cosine, mpmath.mpf(1)))
    arcs = [mpmath.sin((1 - mpmath.mpf(t)) * angle) / mpmath.sin(angle), mpmath.sin(t * angle) / mpmath.sin(angle)]
    if normalize:
        norm = (1 - mpmath.mpf(t)) * norms[0] + t * norms[1]
        arcs = [arc * norm / own for arc, own in zip(arcs, norms, strict=True)]
    pairs = [(arcs[0] * x, arcs[1] * y) for x, y in zip(u, v, strict=True)]
    return np.array([float(x + y) for x, y in pairs]), np.array([float(abs(x) + abs(y)) for x, y in pairs])


def at_angle(angle: float, seed: int = 0, size: int = 24, scale: float = 3.0) -> list[dict[str, torch.Tensor]]:
    """Two float64 tensors of different norm with this angle between them."""
    generator = np.random.default_rng(seed)
    first, other = generator.standard_normal((2, size))
    first /= np.linalg.norm(first)
    other -= first * (first @ other)
    other /= np.linalg.norm(other)
    second = scale * (math.cos(angle) * first + math.sin(angle) * other)
    return [{"t": torch.from_numpy(first)}, {"t": torch.from_numpy(second)}]


@pytest.mark.parametrize("normalize", [True, False])
@given(angle=st.floats(1e-7, math.pi - 0.1), t=st.floats(0.001, 0.999), seed=st.integers(0, 50))
@example(angle=1e-7, t=0.3, seed=0)
@example(angle=1e-5, t=0.5, seed=1)
@example(angle=1e-3, t=0.7, seed=2)
@example(angle=math.pi / 2, t=0.5, seed=3)
@settings(max_examples=8, deadline=None)
def test_any_angle_rounds_once_to_float32(normalize: bool, angle: float, t: float, seed: int) -> None:
    """Half a unit in the last place × (1 + 2⁻¹⁰); what cancels of Σ|cᵢθᵢ| may count with 2⁻⁴⁰, the error of the angle."""
    models = at_angle(angle, seed)

    merged = merge_in_memory(
        "slerp",
        models,
        options={"interpolation_factor": t, "normalize_before_slerp": normalize, "torch_dtype": "float32"},
    )["t"]

    exact, magnitude = reference(models[0]["t"], models[1]["t"], t, normalize)
    bound = half_ulp(exact, torch.float32) * (1 + 2**-10) + 2**-40 * (magnitude - abs(exact)).clip(0)
    assert (abs(merged.double().numpy() - exact) <= bound).all()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("angle", [1e-7, 1e-5, 1.5e-4, 1e-3, 0.1, 1, 2])
def test_small_and_large_angles_are_exact_to_float64(normalize: bool, angle: float) -> None:
    """A few roundings, though a small angle itself is known from its cosine to half of its digits only."""
    models = at_angle(angle)

    merged = merge_in_memory(
        "slerp", models, options={"interpolation_factor": 0.3, "normalize_before_slerp": normalize}
    )["t"]

    exact, magnitude = reference(models[0]["t"], models[1]["t"], 0.3, normalize)
    assert (abs(merged.numpy() - exact) <= 12 * 2.0**-53 * magnitude).all()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("gap", [1e-2, 1e-3, 1e-4, 1e-5])
def test_near_opposite_tensors_lose_only_what_cancels(normalize: bool, gap: float) -> None:
    """A gap of δ to π is known to about 2⁻⁵²/δ, so the coefficients, which grow as 1/δ, to about 2⁻⁵²/δ²."""
    models = at_angle(math.pi - gap, scale=1.5)

    merged = merge_in_memory(
        "slerp", models, options={"interpolation_factor": 0.4, "normalize_before_slerp": normalize}
    )["t"]

    exact, magnitude = reference(models[0]["t"], models[1]["t"], 0.4, normalize)
    assert (magnitude > 0.3 / gap * abs(models[0]["t"].numpy())).all()
    assert (abs(merged.numpy() - exact) <= 16 * 2**-52 / gap**2 * magnitude).all()


def test_the_norm_is_interpolated_between_the_norms() -> None:
    models = at_angle(2.0, scale=5.0)

    merged = merge_in_memory("slerp", models, options={"interpolation_factor": 0.25})["t"]

    assert merged.norm().item() == pytest.approx(0.75 * 1 + 0.25 * 5, rel=1e-12)
    cosine = float(merged @ models[0]["t"] / merged.norm() / models[0]["t"].norm())
    assert math.acos(cosine) == pytest.approx(0.25 * 2.0, rel=1e-12)


def test_without_normalising_the_raw_tensors_are_combined() -> None:
    models = [{"t": torch.tensor([2.0, 0.0])}, {"t": torch.tensor([0.0, 6.0])}]

    merged = merge_in_memory("slerp", models, options={"normalize_before_slerp": False})["t"]

    assert merged.tolist() == pytest.approx([2 * math.sqrt(0.5), 6 * math.sqrt(0.5)], rel=1e-6)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("name", "first", "second", "options"),
    [
        ("first norm below epsilon", [1e-9, 0.0], [3.0, 4.0], {}),
        ("second norm below epsilon", [3.0, 4.0], [0.0, -1e-9], {}),
        ("zeros", [0.0, 0.0], [3.0, 4.0], {}),
        ("zeros and no epsilon", [0.0, 0.0], [3.0, 4.0], {"epsilon": 0}),
        ("antipodal, but one norm is below epsilon", [1e-9, 0.0], [-3.0, 0.0], {}),
        ("norms below a large epsilon", [0.5, 0.0], [0.0, 3.0], {"epsilon": 0.6}),
        ("parallel", [1.0, 1.0], [2.0, 2.0], {}),
        ("parallel and no epsilon", [1.0, 0.0], [2.0, 0.0], {"epsilon": 0}),
        ("sine below a large epsilon", [1.0, 0.0], [1.0, 0.25], {"epsilon": 0.3}),
        ("one element", [2.0], [5.0], {}),
        ("one element each way", [2.0], [-5.0], {}),
        ("one element of four dimensions", [[[[2.0]]]], [[[[-5.0]]]], {}),
        ("scalars", 2.0, -5.0, {}),
    ],
)
def test_linear_interpolation_where_there_is_no_arc(
    normalize: bool, name: str, first: object, second: object, options: dict[str, float]
) -> None:
    models = [{"t": torch.tensor(first, dtype=torch.float64)}, {"t": torch.tensor(second, dtype=torch.float64)}]
    options = {**options, "interpolation_factor": 0.25, "normalize_before_slerp": normalize}

    merged = merge_in_memory("slerp", models, options=options)["t"]

    assert merged.shape == models[0]["t"].shape
    expected = 0.75 * models[0]["t"] + 0.25 * models[1]["t"]
    assert merged.flatten().tolist() == pytest.approx(expected.flatten().tolist(), rel=1e-15)


def test_an_angle_just_above_epsilon_is_an_arc() -> None:
    models = [{"t": torch.tensor([1.0, 0.0])}, {"t": torch.tensor([1.0, 0.25])}]

    arc = merge_in_memory("slerp", models, options={"epsilon": 0.2})["t"]

    assert abs(float(arc[1]) - 0.125) > 1e-4


@pytest.mark.parametrize("second", [[-1.0, -2.0, 3.0], [-5.0, -10.0, 15.0]])
@pytest.mark.parametrize("options", [{}, {"normalize_before_slerp": False}, {"epsilon": 0}, {"epsilon": 0.5}], ids=str)
def test_opposite_tensors_are_an_error_that_names_the_tensor(second: list[float], options: dict[str, object]) -> None:
    models = [
        {"fine": torch.ones(2), "t": torch.tensor([1.0, 2, -3])},
        {"fine": torch.ones(2), "t": torch.tensor(second)},
    ]

    with pytest.raises(NumericError, match=r"^t: the tensors point in opposite directions") as caught:
        merge_in_memory("slerp", models, options=options)
    assert caught.value.exit_status == 5


def test_opposite_tensors_fail_a_real_merge_with_status_5(
    models: SimpleNamespace, command: Callable[..., SimpleNamespace]
) -> None:
    opposite = {name: -tensor for name, tensor in models.tensors["a"].items()}
    write_model(models.b, opposite)
    (models.folder / "merge.yaml").write_text(
        f"strategy: slerp\nmodels: [{{path: {models.a}}}, {{path: {models.b}}}]\noutput_path: {models.output}\n"
    )

    result = command("merge", models.folder / "merge.yaml")

    assert result.status == 5
    assert any(f"{name}: the tensors point in opposite directions" in result.err for name in opposite)
    assert not models.output.exists()


@pytest.mark.parametrize("t", [0, 1])
def test_an_end_of_the_arc_needs_no_angle(t: int) -> None:
    """Also between opposite tensors."""
    first = torch.tensor([1.0, 2.0, -3.0])

    merge = plan_in_memory("slerp", [{"t": first}, {"t": -first}], options={"interpolation_factor": t})

    assert torch.equal(merge.merge()["t"], -first if t else first)
    assert merge.checkpoints[1 - t].reads == []


@pytest.mark.parametrize(
    ("weights", "t"), [([1, 1], 0.5), ([3, 1], 0.25), ([0.25, 0.75], 0.75), ([0, 2], 1), ([2, 0], 0)]
)
def test_t_comes_from_the_weights(weights: list[float], t: float) -> None:
    models = at_angle(1.0)

    from_weights = merge_in_memory("slerp", models, weights=weights)["t"]

    assert torch.equal(from_weights, merge_in_memory("slerp", models, options={"interpolation_factor": t})["t"])


def warnings_of(weights: list[float], options: dict[str, float]) -> list[str]:
    models = [{"path": tensors, "weight": weight} for tensors, weight in zip(at_angle(1.0), weights, strict=True)]
    problems = ModelMerger(MergeConfig(strategy="slerp", models=models, options=options)).check_compatibility()
    return [problem.message for problem in problems if problem.severity == "warning"]


def test_interpolation_factor_wins_over_weights_and_says_so() -> None:
    models = at_angle(1.0)
    given_factor = merge_in_memory("slerp", models, options={"interpolation_factor": 0.4})["t"]

    assert torch.equal(
        merge_in_memory("slerp", models, weights=[3, 1], options={"interpolation_factor": 0.4})["t"], given_factor
    )
    assert warnings_of([3, 1], {"interpolation_factor": 0.4}) == [
        "interpolation_factor 0.4 wins over the weights 3 and 1."
    ]
    assert warnings_of([1, -1], {"interpolation_factor": 0.4}) != []
    assert warnings_of([3, 1], {"interpolation_factor": 0.25}) == []
    assert warnings_of([1, 1], {"interpolation_factor": 0.4}) == []
    assert warnings_of([1, [0, 1]], {"interpolation_factor": 0.5}) == [
        "interpolation_factor 0.5 wins over the weights 1 and [0, 1]."
    ]
    assert warnings_of([{"*": 2}, {"*": 2}], {"interpolation_factor": 0.4}) == []
    assert warnings_of([1, [0, 1]], {}) == []
    assert warnings_of([3, 1], {}) == []


def test_the_warning_is_in_the_report(models: SimpleNamespace) -> None:
    report = modelmerger.merge(
        MergeConfig(
            strategy="slerp",
            models=[{"path": str(models.a), "weight": 0.9}, {"path": str(models.b), "weight": 0.1}],
            options={"interpolation_factor": 0.5},
            output_path=str(models.output),
        )
    )

    assert any("interpolation_factor 0.5 wins over the weights 0.9 and 0.1" in str(note) for note in report.notes)


@pytest.mark.parametrize("weights", [[-1, 3], [1, -3], [0, 0], [1, -1]])
def test_weights_that_give_no_point_between_are_an_error(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="give no point between the models"):
        plan_in_memory("slerp", at_angle(1.0), weights=weights)


@pytest.mark.parametrize("count", [1, 3])
def test_exactly_two_models(count: int) -> None:
    with pytest.raises(ConfigError, match=f"slerp merges exactly two models, {count} given"):
        plan_in_memory("slerp", [{"t": torch.ones(2)}] * count)


@pytest.mark.parametrize(
    "options",
    [{"interpolation_factor": 1.1}, {"interpolation_factor": -0.1}, {"epsilon": -1e-9}, {"normalize_before_slerp": 1}],
    ids=str,
)
def test_options_out_of_range_are_errors(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        plan_in_memory("slerp", at_angle(1.0), options=options)


def test_slerp_reads_every_tensor_twice_and_says_so() -> None:
    merge = plan_in_memory("slerp", at_angle(1.0))

    merge.merge()

    assert sum(c.bytes_read for c in merge.checkpoints) == merge.plan.bytes_read == 2 * 2 * 24 * 8


def test_shapes_must_agree() -> None:
    with pytest.raises(ModelCompatibilityError, match=r"t: has shape \[25\] here and \[24\] in 'model_0'"):
        plan_in_memory("slerp", [at_angle(1.0)[0], at_angle(1.0, size=25)[1]])
