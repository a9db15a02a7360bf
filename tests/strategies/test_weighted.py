from typing import Any

import pytest
import torch
from modelmerger import ConfigError, MergeConfig
from modelmerger.testing import merge_in_memory, plan_in_memory


def model(*values: float) -> dict[str, torch.Tensor]:
    tensor = torch.tensor(values, dtype=torch.float64)
    return {"vector": tensor, "matrix": tensor.view(-1, 1), "scalar": tensor[0].clone()}


def test_weights_are_divided_by_their_sum_unless_told_otherwise() -> None:
    models = [model(1, 2), model(5, 10)]

    assert merge_in_memory("weighted", models, weights=[3, 1])["vector"].tolist() == [2, 4]
    raw = merge_in_memory("weighted", models, weights=[3, 1], options={"normalize_weights": False})
    assert raw["vector"].tolist() == [8, 16]


def test_weights_are_one_each_by_default_and_may_be_negative() -> None:
    models = [model(1, 2), model(5, 10)]

    assert merge_in_memory("weighted", models)["vector"].tolist() == [3, 6]
    assert merge_in_memory("weighted", models, weights=[-1, 2])["vector"].tolist() == [9, 18]


@pytest.mark.parametrize("weights", [[1, -1], [0, 0], [0.1, 0.2, -0.3]], ids=str)
def test_weights_that_add_up_to_zero_are_an_error_and_no_division(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"add up to .*, which nothing can be divided by") as caught:
        plan_in_memory("weighted", [model(1, 2)] * len(weights), weights=weights)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(("weights", "error"), [([1, -1 + 0.9e-9], True), ([1, -1 + 1.1e-9], False)], ids=str)
def test_a_sum_within_a_billionth_of_zero_counts_as_zero(weights: list[float], error: bool) -> None:
    if error:
        with pytest.raises(ConfigError):
            plan_in_memory("weighted", [model(1, 2)] * 2, weights=weights)
    else:
        plan_in_memory("weighted", [model(1, 2)] * 2, weights=weights)


def test_weights_that_add_up_to_zero_are_fine_where_nothing_is_divided() -> None:
    merged = merge_in_memory(
        "weighted", [model(5, 10), model(1, 2)], weights=[1, -1], options={"normalize_weights": False}
    )

    assert merged["vector"].tolist() == [4, 8]


def test_weight_decay_shrinks_matrices_and_spares_vectors_and_scalars() -> None:
    models = [{**model(4, 8), "kernel": torch.full((1, 2, 1, 2), 4.0)}] * 2

    merged = merge_in_memory("weighted", models, options={"weight_decay": 0.25})

    assert merged["matrix"].tolist() == [[3], [6]]
    assert merged["kernel"].unique().tolist() == [3]
    assert merged["vector"].tolist() == [4, 8]
    assert merged["scalar"].tolist() == 4


@pytest.mark.parametrize("decay", [1.0, 1.5, -0.1, "0.1", True])
def test_weight_decay_is_a_number_from_zero_to_below_one(decay: object) -> None:
    with pytest.raises(ConfigError):
        plan_in_memory("weighted", [model(1, 2)], options={"weight_decay": decay})


def test_a_model_of_weight_zero_is_not_read() -> None:
    merge = plan_in_memory("weighted", [model(1, 2), model(3, 4), model(5, 6)], weights=[1, 0, 1])

    assert merge.merge()["vector"].tolist() == [3, 4]
    assert merge.checkpoints[1].reads == []
    assert merge.plan.bytes_read == sum(c.bytes_read for c in merge.checkpoints) == 2 * 5 * 8


def test_subtracting_belongs_to_task_arithmetic() -> None:
    with pytest.raises(ConfigError, match="'operation' belongs to task_arithmetic"):
        plan_in_memory("weighted", [model(1, 2)] * 2, model_options=[{}, {"operation": "subtract"}])


def test_the_weight_of_a_single_model_is_noted_where_it_is_divided_by_itself() -> None:
    def notes(strategy: str = "weighted", weights: tuple[Any, ...] = (0.5,), **options: Any) -> list[str]:
        models = [{"path": f"./{i}", "weight": weight} for i, weight in enumerate(weights)]
        settings, _ = MergeConfig(strategy=strategy, models=models, base_model="./base", options=options).resolved()
        assert all(note.severity == "note" for note in settings.notes)
        return [str(note) for note in settings.notes]

    (note,) = notes()
    assert note.startswith("models[0].weight: has no effect: the weight 0.5 of a single model is divided by itself")
    assert "task_arithmetic" in note
    assert len(notes(weights=([0.2, 0.8],))) == 1
    assert notes(weights=(1.0,)) == notes(weights=(0.5, 0.5)) == notes(normalize_weights=False) == []
    assert notes("task_arithmetic") == []
