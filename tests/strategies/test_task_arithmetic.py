from typing import Any

import pytest
import torch
from modelmerger import ConfigError, MergeConfig
from modelmerger.testing import Planned, merge_in_memory, plan_in_memory


def model(*values: float) -> dict[str, torch.Tensor]:
    return {"t": torch.tensor(values, dtype=torch.float64)}


BASE = model(10, 20, 30)


def merged(*arguments: Any, **keywords: Any) -> list[float]:
    return merge_in_memory("task_arithmetic", *arguments, **keywords)["t"].tolist()


def test_task_vectors_are_added_to_the_base() -> None:
    tunes = [model(11, 20, 30), model(10, 24, 30)]

    assert merged(tunes, BASE) == [11, 24, 30]
    assert merged(tunes, BASE, [0.5, 0.25]) == [10.5, 21, 30]


def test_the_scaling_factor_scales_them_all() -> None:
    assert merged([model(11, 20, 30), model(10, 24, 30)], BASE, [0.5, 0.25], options={"scaling_factor": 2}) == [
        11,
        22,
        30,
    ]
    assert merged([model(12, 20, 30)], BASE, options={"scaling_factor": -0.5}) == [9, 20, 30]


def test_a_matched_scale_is_the_share_that_counts_for_several_models() -> None:
    """‖λ·τ‖ = share·‖Σ wᵢτᵢ‖, where τ is that sum."""
    options = {"scaling_factor": "matched"}
    assert merged([model(15, 20, 30), model(10, 25, 30)], BASE, [2, -1], options=options) == [18, 16, 30]
    assert merged([model(15, 20, 30)], BASE, [-2], options=options) == [0, 20, 30]
    assert merged([model(15, 20, 30), model(10, 24, 30)], BASE, [1, 0], options=options) == [15, 20, 30]


@pytest.mark.parametrize("weight", [0.5, -0.5])
def test_subtracting_takes_away_whatever_the_sign_of_the_weight(weight: float) -> None:
    """The API document's `weight: -0.5, operation: subtract` removes half of the task vector."""
    assert merged([model(14, 20, 30)], BASE, [weight], [{"operation": "subtract"}]) == [8, 20, 30]


def test_a_negative_weight_that_is_added_takes_away_too() -> None:
    assert merged([model(14, 20, 30)], BASE, [-0.5], [{"operation": "add"}]) == [8, 20, 30]


def test_adding_and_subtracting_one_model_leaves_the_base() -> None:
    tune = model(14, 21, 33)

    assert merged([tune, tune], BASE, [0.5, 0.5], [{}, {"operation": "subtract"}]) == [10, 20, 30]


def test_a_factor_of_zero_leaves_the_base_and_reads_nothing_else() -> None:
    merge = plan_in_memory("task_arithmetic", [model(14, 21, 33)], BASE, options={"scaling_factor": 0})

    assert merge.merge()["t"].tolist() == [10, 20, 30]
    assert merge.checkpoints[0].reads == []


def clamping(**options: Any) -> Planned:
    tunes = [model(-50, 20, 50)]
    return plan_in_memory("task_arithmetic", tunes, BASE, options={"clamp_weights": True, **options})


def test_clamping_is_off_by_default_and_counts_what_it_changed() -> None:
    assert merged([model(-50, 20, 50)], BASE) == [-50, 20, 50]

    merge = clamping(clamp_range=[-40, 40])
    assert merge.merge()["t"].tolist() == [-40, 20, 40]
    assert merge.stage().records[0, 0].counts == {"clamped values": 2}


def test_the_default_range_is_two() -> None:
    assert clamping().merge()["t"].tolist() == [-2, 2, 2]


def test_values_at_the_ends_of_the_range_are_not_counted() -> None:
    merge = clamping(clamp_range=[-50, 50])

    assert merge.merge()["t"].tolist() == [-50, 20, 50]
    assert merge.stage().records[0, 0].counts == {"clamped values": 0}


@pytest.mark.parametrize(
    "options",
    [
        {"clamp_range": [2, -2]},
        {"clamp_range": [1, 1]},
        {"clamp_range": [1]},
        {"clamp_range": [1, 2, 3]},
        {"clamp_range": [float("nan"), 1]},
        {"clamp_range": "wide"},
        {"scaling_factor": float("inf")},
        {"scaling_factor": "1"},
        {"clamp_weights": "yes"},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_errors(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"clamp_range|scaling_factor|clamp_weights"):
        plan_in_memory("task_arithmetic", [model(1, 2, 3)], BASE, options=options)


def test_the_base_is_needed() -> None:
    with pytest.raises(ConfigError, match="task_arithmetic needs base_model"):
        plan_in_memory("task_arithmetic", [model(1, 2, 3)])


def test_the_base_gives_names_dtype_and_order() -> None:
    base = {"b": torch.ones(2).half(), "a": torch.ones(3).half()}
    tune = {"a": torch.full((3,), 3.0), "b": torch.full((2,), 2.0)}

    result = merge_in_memory("task_arithmetic", [tune], base, [0.5])

    assert list(result) == ["b", "a"]
    assert {tensor.dtype for tensor in result.values()} == {torch.float16}
    assert result["a"].tolist() == [2, 2, 2]


def test_a_range_without_clamping_is_noted() -> None:
    def notes(**options: Any) -> list[str]:
        config = MergeConfig(strategy="task_arithmetic", models=[{"path": "./a"}], base_model="./b", options=options)
        return [str(note) for note in config.resolved()[0].notes]

    assert notes(clamp_range=[-1.0, 1.0]) == ["options.clamp_range: has no effect, since clamp_weights is false."]
    assert notes(clamp_range=[-1.0, 1.0], clamp_weights=True) == notes() == []
