import pytest
import torch
from modelmerger import ConfigError
from modelmerger.testing import merge_in_memory, plan_in_memory


def models(*values: float) -> list[dict[str, torch.Tensor]]:
    return [{"t": torch.tensor([value], dtype=torch.float64)} for value in values]


def test_each_model_moves_the_result_towards_itself_in_order() -> None:
    merged = merge_in_memory("sequential", models(0, 8, 16), weights=[1, 0.5, 0.25])["t"]

    assert merged.tolist() == [0.75 * (0.5 * 0 + 0.5 * 8) + 0.25 * 16]
    swapped = merge_in_memory("sequential", models(0, 16, 8), weights=[1, 0.25, 0.5])["t"]
    assert swapped.tolist() == [0.5 * (0.75 * 0 + 0.25 * 16) + 0.5 * 8]


def test_falling_weights_give_the_plain_average() -> None:
    merged = merge_in_memory("sequential", models(1, 2, 6, 11), weights=[1, 1 / 2, 1 / 3, 1 / 4])["t"]

    assert merged.tolist() == pytest.approx([5.0], rel=1e-15)


def test_a_weight_of_one_forgets_what_came_before() -> None:
    merge = plan_in_memory("sequential", models(1, 2, 6), weights=[1, 0.5, 1])

    assert merge.merge()["t"].tolist() == [6]
    assert merge.checkpoints[0].reads == merge.checkpoints[1].reads == []


def test_without_weights_the_last_model_is_the_result() -> None:
    assert merge_in_memory("sequential", models(1, 2, 6))["t"].tolist() == [6]


def test_weights_may_leave_the_segment_between_the_models() -> None:
    assert merge_in_memory("sequential", models(1, 2), weights=[1, 3])["t"].tolist() == [-2 * 1 + 3 * 2]


@pytest.mark.parametrize("first", [0, 0.5, 2, -1])
def test_the_first_weight_must_be_one(first: float) -> None:
    with pytest.raises(ConfigError, match="sequential starts with the first model, so its weight must be 1"):
        plan_in_memory("sequential", models(1, 2), weights=[first, 0.5])
