"""Losses and their derivatives for the numbers of a config, against float64 autograd through a whole model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modelmerger_plugins.tune.evaluating import ByCoefficients, encoded, tokenizer_of
from modelmerger_plugins.tune.measured import Lines, per_token
from modelmerger_plugins.tune.opened import Opened, opened, read
from safetensors.torch import load_file
from torch import Tensor

from tests.plugins.tune.conftest import NAMES, Make, lines_of, losses_under


def reference(tiny: Path, lines: Lines, vector: Tensor, weigh: Any) -> dict[str, Tensor]:
    """The loss of each split under Σ coefficients · models, in float64, by the model's own forward and nothing of ours.

    weigh: of a tensor's name and the vector, the coefficients of the models and of the base.
    """
    models = [load_file(tiny / name / "model.safetensors") for name in (*NAMES, "base")]
    merged = {
        name: sum(c * m[name].double() for c, m in zip(weigh(name, vector), models, strict=True)) for name in models[-1]
    }
    return losses_under(tiny / "base", merged, lines)


def measured(config: dict[str, Any], lines: int) -> tuple[Opened, ByCoefficients, Lines]:
    config["tune"]["search"] |= {"dtype": "float64", "batch_tokens": 100}  # several batches a split
    found = opened(read(config), lines)
    return found, ByCoefficients(found), encoded({name: lines_of(name, 5) for name in NAMES}, tokenizer_of(found))


def test_losses_and_derivatives_of_task_arithmetic_are_those_of_autograd(config: Make, tiny: Path) -> None:
    found, evaluator, lines = measured(config(mark={"tune": [0, 3], "start": 1.0, "per": "tensor"}), 100)
    names = found.space.names()
    generator = np.random.default_rng(0)
    vector = generator.uniform(0.2, 2.0, len(names))
    nats, slopes = evaluator.slopes(lines, list(vector))

    of = {name: i for i, name in enumerate(names)}
    wanted_at = torch.tensor(vector, requires_grad=True)

    def weigh(tensor: str, at: Tensor) -> list[Tensor]:
        scaled = [0.35 * at[of[f"models[{i}].weight: {tensor}"]] for i in range(len(NAMES))]
        return [*scaled, 1 - torch.stack(scaled).sum()]

    losses = reference(tiny, lines, wanted_at, weigh)
    for split, loss in losses.items():
        (wanted,) = torch.autograd.grad(loss, wanted_at, retain_graph=True)
        assert per_token(nats, lines)[split] == pytest.approx(float(loss.detach()), rel=1e-7)
        assert np.linalg.norm(slopes[split] - wanted.numpy()) <= 1e-5 * np.linalg.norm(wanted.numpy())
        assert np.abs(wanted.numpy()).min() > 0


def test_they_are_those_of_finite_differences(config: Make) -> None:
    _, evaluator, lines = measured(config(mark={"tune": [0, 3], "start": 1.0, "per": "layer"}), 30)
    found, slopes = evaluator.slopes(lines, vector := [0.7 + 0.05 * i for i in range(12)])
    step = 1e-3  # norms are computed in float32, whatever the dtype
    for i in (0, 5, 11):
        ends = [evaluator.nats(lines, [v + sign * step * (j == i) for j, v in enumerate(vector)]) for sign in (1, -1)]
        for split in found:
            high, low = (per_token(end, lines)[split] for end in ends)
            assert slopes[split][i] == pytest.approx((high - low) / (2 * step), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("normalize", [True, False])
def test_weights_of_an_average_and_one_of_its_options(config: Make, tiny: Path, normalize: bool) -> None:
    """Normalised weights are no linear function, and there is no base to compare with."""
    given = config(mark={"tune": [0, 3], "start": 1.0, "per": "model"})
    del given["base_model"]
    decay = {"tune": [0, 0.5], "start": 0.1}
    given |= {"strategy": "weighted", "options": {"normalize_weights": normalize, "weight_decay": decay}}
    given["models"].append({"path": str(tiny / "base"), "weight": 2.0})
    _, evaluator, lines = measured(given, 10)
    vector = [0.6, 0.9, 1.4, 0.2]
    nats, slopes = evaluator.slopes(lines, vector)
    at = torch.tensor(vector, dtype=torch.float64, requires_grad=True)

    def weigh(tensor: str, at: Tensor) -> list[Tensor]:
        weights = torch.cat([at[:3], torch.tensor([2.0], dtype=torch.float64)])
        weights = weights / weights.sum() if normalize else weights
        matrix = "norm" not in tensor and "bias" not in tensor
        return list(weights * (1 - at[3]) if matrix else weights)

    for split, loss in reference(tiny, lines, at, weigh).items():
        (wanted,) = torch.autograd.grad(loss, at, retain_graph=True)
        assert per_token(nats, lines)[split] == pytest.approx(float(loss.detach()), rel=1e-7)
        assert slopes[split] == pytest.approx(wanted.numpy(), rel=1e-5)


def test_in_float32_it_is_as_near_as_rounding_allows(config: Make) -> None:
    _, exact, lines = measured(config(), 10)
    given = config()
    given["tune"]["search"] |= {"dtype": "float32", "batch_tokens": 100}
    rounded = ByCoefficients(opened(read(given), 10))
    one, two = (evaluator.slopes(lines, [1.0, 0.5, 2.0]) for evaluator in (exact, rounded))
    for split in NAMES:
        assert two[0][split] == pytest.approx(one[0][split], rel=1e-5)
        assert two[1][split] == pytest.approx(one[1][split], rel=1e-4)


def test_sources_are_the_models_themselves(config: Make, tiny: Path) -> None:
    found, evaluator, lines = measured(config(), 10)
    for number, name in enumerate((*NAMES, "base")):
        assert found.models[number] == name
        alone = [float(i == number) for i in range(4)]
        wanted = reference(tiny, lines, torch.zeros(1), lambda _, __, alone=alone: alone)
        losses = per_token(evaluator.source_nats(lines, number), lines)
        assert losses == pytest.approx({split: float(loss.detach()) for split, loss in wanted.items()}, rel=1e-7)
