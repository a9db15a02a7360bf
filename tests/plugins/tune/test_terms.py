"""Weights of a strategy that splits its merge into terms, against float64 autograd through a whole model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modelmerger import ConfigError, MergeConfig, merge
from modelmerger_plugins.tune import MergeTuner
from modelmerger_plugins.tune.evaluating import ByCoefficients, encoded, tokenizer_of
from modelmerger_plugins.tune.gradient.terms import KeptTerms
from modelmerger_plugins.tune.live.evaluator import nats_of
from modelmerger_plugins.tune.measured import Lines, per_token
from modelmerger_plugins.tune.opened import Opened, opened, read
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.plugins.tune.conftest import NAMES, Make, lines_of, losses_under


def tsv(config: dict[str, Any], factor: Any) -> dict[str, Any]:
    return config | {"strategy": "tsv_m", "options": {"scaling_factor": factor}}


def measured(config: dict[str, Any], lines: int) -> tuple[Opened, ByCoefficients, Lines]:
    config["tune"]["search"] |= {"dtype": "float64", "batch_tokens": 100}
    found = opened(read(config), lines)
    return found, ByCoefficients(found), encoded({name: lines_of(name, 5) for name in NAMES}, tokenizer_of(found))


def polar(matrix: np.ndarray) -> np.ndarray:
    """The factor of the polar decomposition, by eigenvectors."""
    values, vectors = np.linalg.eigh(matrix @ matrix.T)
    roots = np.where(values > values[-1] * 1e-12, 1 / np.sqrt(np.maximum(values, 1e-300)), 0)
    return np.asarray((vectors * roots) @ vectors.T @ matrix)


def terms_of(taus: list[np.ndarray]) -> list[np.ndarray]:
    """Of each model, its strongest directions among those of all: algorithm 1 of the paper, not weighed."""
    most = min(taus[0].shape) // len(taus)
    parts = [np.linalg.svd(tau, full_matrices=False) for tau in taus]
    left = polar(np.concatenate([u[:, :most] for u, _, _ in parts], 1))
    right = polar(np.concatenate([v[:most] for _, _, v in parts]).T).T
    columns = [slice(i * most, (i + 1) * most) for i in range(len(taus))]
    return [left[:, own] @ np.diag(s[:most]) @ right[own] for own, (_, s, _) in zip(columns, parts, strict=True)]


def reference(tiny: Path, lines: Lines, weigh: Any, factor: Any) -> dict[str, Tensor]:
    """The loss of each split, float64. weigh: of a tensor's name, the weights of the models. factor: λ, or matched."""
    models = [load_file(tiny / name / "model.safetensors") for name in (*NAMES, "base")]
    merged = {}
    for name, base in models[-1].items():
        taus = [model[name].double() - base.double() for model in models[:-1]]
        weights = weigh(name)
        if base.dim() == 2 and "embed" not in name:
            terms = [torch.from_numpy(term) for term in terms_of([tau.numpy() for tau in taus])]
            total = sum(weight * term for weight, term in zip(weights, terms, strict=True))
            plain = sum(weight * tau for weight, tau in zip(weights, taus, strict=True))
            scale = 0.55 * 4 / 3 * plain.norm() / total.norm() if factor == "matched" else factor
            merged[name] = base.double() + scale * total
        else:
            mean = sum(weight * tau for weight, tau in zip(weights, taus, strict=True)) / len(NAMES)
            merged[name] = base.double() + (1.0 if factor == "matched" else factor) * mean
    return losses_under(tiny / "base", merged, lines)


@pytest.mark.parametrize(("factor", "per", "lines"), [(0.8, "tensor", 100), ("matched", "layer", 30)])
def test_losses_and_derivatives_of_tsv_m_are_those_of_autograd(
    config: Make, tiny: Path, factor: Any, per: str, lines: int
) -> None:
    given = tsv(config(mark={"tune": [0, 3], "start": 1.0, "per": per}), factor)
    found, evaluator, own = measured(given, lines)
    coordinates = found.space.coordinates
    vector = np.random.default_rng(0).uniform(0.2, 2.0, len(coordinates))
    nats, slopes = evaluator.slopes(own, list(vector))
    at = torch.tensor(vector, requires_grad=True)
    of = {(c.mark, name): i for i, c in enumerate(coordinates) for name in c.tensors}

    losses = reference(tiny, own, lambda name: [at[of[i, name]] for i in range(len(NAMES))], factor)
    for split, loss in losses.items():
        (wanted,) = torch.autograd.grad(loss, at, retain_graph=True)
        assert per_token(nats, own)[split] == pytest.approx(float(loss.detach()), rel=1e-7)
        assert np.linalg.norm(slopes[split] - wanted.numpy()) <= 1e-5 * np.linalg.norm(wanted.numpy())
        assert np.abs(wanted.numpy()).min() > 0


def test_the_scale_is_found_too(config: Make, tiny: Path) -> None:
    given = tsv(config(), 0.8)
    given["models"] = [{**model, "weight": 0.5 + i} for i, model in enumerate(given["models"])]
    given["options"] = {"scaling_factor": {"tune": [0, 2], "start": 0.8}}
    _, evaluator, own = measured(given, 10)
    nats, slopes = evaluator.slopes(own, [1.1])
    at = torch.tensor(1.1, dtype=torch.float64, requires_grad=True)
    for split, loss in reference(tiny, own, lambda _: [0.5, 1.5, 2.5], at).items():
        (wanted,) = torch.autograd.grad(loss, at, retain_graph=True)
        assert per_token(nats, own)[split] == pytest.approx(float(loss.detach()), rel=1e-7)
        assert slopes[split] == pytest.approx([float(wanted)], rel=1e-5)


def test_sources_are_the_models_themselves(config: Make, tiny: Path) -> None:
    _, evaluator, own = measured(tsv(config(), "matched"), 10)
    for number, name in enumerate((*NAMES, "base")):
        model = AutoModelForCausalLM.from_pretrained(tiny / name, dtype=torch.float64).eval()
        wanted = per_token(nats_of(model, own, 0, 4096), own)
        assert per_token(evaluator.source_nats(own, number), own) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("factor", "lines"), [("matched", 12), (0.8, 30)])
def test_the_merged_model_has_the_loss_that_the_search_saw(
    config: Make, tmp_path: Path, factor: Any, lines: int
) -> None:
    tuner = MergeTuner(tsv(config(lines, objective={"take": {"a": 1}}, search={"steps": 2}), factor))
    told: list[tuple[int, int]] = []
    report = tuner.tune(preparing=lambda done, total: told.append((done, total)))
    assert told == [(done, 14) for done in range(1, 15)]  # the matrices of two layers
    assert report.method == "gradient"
    assert report.best.value < report.trials[0].value
    assert sorted(path.name for path in (tmp_path / "out.tune").iterdir()) == ["study.jsonl", "tune.html", "tuned.yaml"]
    tuner.merge()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    own = encoded({name: lines_of(name, lines) for name in NAMES}, AutoTokenizer.from_pretrained(tmp_path / "out"))
    assert per_token(nats_of(model, own, 0, 4096), own) == pytest.approx(dict(report.best.losses), rel=1e-4)


def test_a_weight_of_0_is_never_tried(config: Make, tmp_path: Path) -> None:
    given = tsv(config(mark={"tune": [0, 1], "start": 0}), 0.8)
    report = MergeTuner(given).tune()
    assert report.trials[0].vector == (1e-6,) * 3
    assert all(number > 0 for trial in report.trials for number in trial.vector)
    tuned = MergeConfig.from_file(tmp_path / "out.tune" / "tuned.yaml").as_dict()
    merge({**tuned, "models": [{**model, "weight": 1e-6} for model in tuned["models"]]})
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    own = encoded({name: lines_of(name, 12) for name in NAMES}, AutoTokenizer.from_pretrained(tmp_path / "out"))
    assert per_token(nats_of(model, own, 0, 4096), own) == pytest.approx(dict(report.trials[0].losses), rel=1e-4)


def test_strategies_whose_terms_depend_on_the_weights_have_no_gradient(config: Make) -> None:
    given = tsv(config(search={"method": "gradient"}), 0.8) | {"strategy": "iso_c"}
    with pytest.raises(ConfigError, match="there is no gradient: iso_c is no linear combination"):
        MergeTuner(given).tune()


@pytest.mark.parametrize("kinds", ["factors", "whole", "both", "empty"])
@pytest.mark.parametrize(("start", "stop"), [(0, 35), (7, 21), (3, 24), (16, 18)])
def test_kept_terms_are_what_they_were(tmp_path: Path, kinds: str, start: int, stop: int) -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    factors = [(drawn(5, rank), drawn(rank, 7)) for rank in (2, 0, 3)]
    terms: list[Any] = {
        "factors": factors,
        "whole": [drawn(5, 7), drawn(5, 7)],
        "both": [factors[0], drawn(5, 7), factors[1], factors[2]],
        "empty": [factors[1]],
    }[kinds]
    kept = KeptTerms.written(terms, tmp_path / "terms", torch.float64)
    plain = torch.stack(
        [term.flatten() if isinstance(term, Tensor) else (term[0] @ term[1]).flatten() for term in terms]
    )
    coefficients, gradient = drawn(len(terms)), drawn(stop - start)
    torch.testing.assert_close(kept.added_up(coefficients, start, stop), coefficients @ plain[:, start:stop])
    torch.testing.assert_close(kept.products(gradient, start, stop), plain[:, start:stop] @ gradient)


@pytest.mark.parametrize(
    ("strategy", "factor"), [("dare_linear", 0.7), ("della_linear", "matched"), ("breadcrumbs", "matched")]
)
def test_strategies_that_keep_some_elements_have_the_losses_of_their_merge(
    config: Make, strategy: str, factor: Any, tmp_path: Path
) -> None:
    """The losses that the search saw are those of the model that comes out."""
    given = config(search={"steps": 1}) | {"strategy": strategy, "options": {"scaling_factor": factor}}
    tuner = MergeTuner(given)
    report = tuner.tune()
    assert report.method == "gradient"
    tuner.merge()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    own = encoded({name: lines_of(name, 12) for name in NAMES}, AutoTokenizer.from_pretrained(tmp_path / "out"))
    assert per_token(nats_of(model, own, 0, 4096), own) == pytest.approx(dict(report.best.losses), rel=1e-4)


def test_what_terms_depend_on_has_no_gradient(config: Make) -> None:
    given = config(search={"method": "gradient"}) | {"strategy": "dare_linear"}
    given["options"] = {"scaling_factor": 0.5, "density": {"tune": [0.5, 1.0]}}
    with pytest.raises(ConfigError, match=r"what dare_linear adds up depends on options\.density"):
        MergeTuner(given).tune()
