"""Adapters in their factors: losses and derivatives against float64 autograd, and against whole models streamed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modelmerger import Apart, Checkpoint, ConfigError
from modelmerger.testing import MemoryCheckpoint
from modelmerger_plugins.tune import MergeTuner
from modelmerger_plugins.tune.evaluating import ByCoefficients, encoded, tokenizer_of
from modelmerger_plugins.tune.gradient import factored
from modelmerger_plugins.tune.gradient.factored import FactoredLinear, FactoredSource, with_factors
from modelmerger_plugins.tune.gradient.sources import Source
from modelmerger_plugins.tune.live.evaluator import nats_of
from modelmerger_plugins.tune.measured import Lines, per_token
from modelmerger_plugins.tune.opened import Opened, opened, read
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.plugins.tune.conftest import NAMES, Make, lines_of, losses_under

RANKS = {"a": 2, "b": 3, "c": 1}
MODULES = {
    "a": ("self_attn.q_proj", "mlp.down_proj"),
    "b": ("self_attn.q_proj",),
    "c": ("mlp.down_proj", "self_attn.v_proj"),
}


@pytest.fixture
def adapters(tiny: Path, tmp_path: Path) -> dict[str, Path]:
    """One a model, of other modules and ranks each; `a` changes the embedding too."""
    base = load_file(tiny / "base" / "model.safetensors")
    found = {}
    for seed, name in enumerate(NAMES):
        generator = torch.Generator().manual_seed(seed)
        tensors = {}

        def drawn(*shape: int, generator: torch.Generator = generator) -> Tensor:
            return 0.2 * torch.randn(shape, generator=generator)

        for module in (f"model.layers.{layer}.{module}" for layer in (0, 1) for module in MODULES[name]):
            rows, columns = base[f"{module}.weight"].shape
            tensors[f"base_model.model.{module}.lora_A.weight"] = drawn(RANKS[name], columns)
            tensors[f"base_model.model.{module}.lora_B.weight"] = drawn(rows, RANKS[name])
        if name == "a":
            rows, columns = base["model.embed_tokens.weight"].shape
            tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = drawn(RANKS[name], rows)
            tensors["base_model.model.model.embed_tokens.lora_embedding_B"] = drawn(columns, RANKS[name])
        found[name] = tmp_path / "adapters" / name
        found[name].mkdir(parents=True)
        save_file(tensors, found[name] / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": RANKS[name], "lora_alpha": 2 * RANKS[name]}
        config["base_model_name_or_path"] = str(tiny / "base")
        (found[name] / "adapter_config.json").write_text(json.dumps(config))
    return found


Given = Callable[..., dict[str, Any]]


@pytest.fixture
def given(config: Make, adapters: dict[str, Path]) -> Given:
    """A function of the arguments of `config`, which gives a config of the adapters."""

    def made(*args: Any, **keywords: Any) -> dict[str, Any]:
        found = config(*args, **keywords)
        for name, model in zip(NAMES, found["models"], strict=True):
            model["path"] = str(adapters[name])
        return found

    return made


def measured(config: dict[str, Any], lines: int) -> tuple[Opened, ByCoefficients, Lines]:
    config["tune"]["search"] |= {"dtype": "float64", "batch_tokens": 100}
    found = opened(read(config), lines)
    return found, ByCoefficients(found), encoded({name: lines_of(name, 5) for name in NAMES}, tokenizer_of(found))


def update(adapter: Path, tensor: str) -> Tensor | None:
    """2·BA: alpha is twice the rank."""
    tensors = {key: value.double() for key, value in load_file(adapter / "adapter_model.safetensors").items()}
    module = f"base_model.model.{tensor.removesuffix('.weight')}"
    if f"{module}.lora_A.weight" in tensors:
        return 2 * tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"]
    if f"{module}.lora_embedding_A" in tensors:
        return 2 * (tensors[f"{module}.lora_embedding_B"] @ tensors[f"{module}.lora_embedding_A"]).T
    return None


def reference(tiny: Path, adapters: dict[str, Path], lines: Lines, weigh: Any) -> dict[str, Tensor]:
    """The loss of each split, float64. weigh: of a tensor's name, the coefficients of the updates, and of the base."""
    merged = {}
    for name, base in load_file(tiny / "base" / "model.safetensors").items():
        *coefficients, of_base = weigh(name)
        merged[name] = of_base * base.double()
        for model, coefficient in zip(NAMES, coefficients, strict=True):
            if (change := update(adapters[model], name)) is not None:
                merged[name] = merged[name] + coefficient * change
    return losses_under(tiny / "base", merged, lines)


def in_factors(evaluator: ByCoefficients) -> set[str]:
    return {name for name, source in evaluator._sources.items() if isinstance(source, FactoredSource)}


@pytest.mark.parametrize("merge_adapters", [False, True])
def test_losses_and_derivatives_are_those_of_autograd(
    given: Given, tiny: Path, adapters: dict[str, Path], merge_adapters: bool
) -> None:
    config = given(mark={"tune": [0, 3], "start": 1.0, "per": "tensor"})
    config["peft_config"] = {"merge_adapters": merge_adapters}
    found, evaluator, lines = measured(config, 100)
    names = found.space.names()
    assert len(names) == 3 * (26 if not merge_adapters else 7)  # a merge of updates is of those tensors alone
    vector = np.random.default_rng(0).uniform(0.2, 2.0, len(names))
    nats, slopes = evaluator.slopes(lines, list(vector))
    at = torch.tensor(vector, requires_grad=True)
    of = {name: i for i, name in enumerate(names)}

    def weigh(tensor: str) -> list[Any]:
        if f"models[0].weight: {tensor}" not in of:
            return [0.0, 0.0, 0.0, 1.0]
        return [*(0.35 * at[of[f"models[{i}].weight: {tensor}"]] for i in range(3)), 1.0]

    for split, loss in reference(tiny, adapters, lines, weigh).items():
        (wanted,) = torch.autograd.grad(loss, at, retain_graph=True)
        assert per_token(nats, lines)[split] == pytest.approx(float(loss.detach()), rel=1e-7)
        assert np.linalg.norm(slopes[split] - wanted.numpy()) <= 1e-5 * np.linalg.norm(wanted.numpy())
        assert np.count_nonzero(wanted.numpy()) == 11  # so many tensors have all three adapters together


@pytest.mark.parametrize("merge_adapters", [False, True])
def test_weights_that_are_not_normalised_scale_the_base_of_whole_models(
    given: Given, tiny: Path, adapters: dict[str, Path], merge_adapters: bool
) -> None:
    """A merge of updates has the base once, whatever the weights are."""
    config = given() | {"strategy": "weighted", "options": {"normalize_weights": False}}
    config["peft_config"] = {"merge_adapters": merge_adapters}
    del config["base_model"]
    _, evaluator, lines = measured(config, 10)
    assert in_factors(evaluator)
    nats, slopes = evaluator.slopes(lines, [0.3, 0.5, 0.4])
    at = torch.tensor([0.3, 0.5, 0.4], dtype=torch.float64, requires_grad=True)

    def weigh(_: str) -> list[Any]:
        return [*at, 1.0 if merge_adapters else at.sum()]

    for split, loss in reference(tiny, adapters, lines, weigh).items():
        (wanted,) = torch.autograd.grad(loss, at, retain_graph=True)
        assert per_token(nats, lines)[split] == pytest.approx(float(loss.detach()), rel=1e-7)
        assert slopes[split] == pytest.approx(wanted.numpy(), rel=1e-5)


def test_it_is_what_streaming_whole_models_gives(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    vector = [0.6, 1.1, 0.9]
    found, evaluator, lines = measured(given(), 10)
    assert in_factors(evaluator) == {tensor.name for tensor in found.plan.tensors}
    layers = evaluator._losses._skeleton._streamed[:-1]
    assert all(type(module) is FactoredLinear for layer in layers for module in layer.__dict__["_in_factors"].values())
    assert [len(layer.__dict__["_in_factors"]) for layer in layers] == [7, 7]
    monkeypatch.setattr(factored, "_place", lambda _: object())
    _, streamed, _ = measured(given(), 10)
    assert in_factors(streamed) == set()
    ours, theirs = (one.slopes(lines, vector) for one in (evaluator, streamed))
    for split in NAMES:
        assert ours[0][split] == pytest.approx(theirs[0][split], rel=1e-6)  # folded in float32
        assert ours[1][split] == pytest.approx(theirs[1][split], rel=1e-4)
    for model in range(4):
        sources = [one.source_nats(lines, model) for one in (evaluator, streamed)]
        for split in NAMES:
            assert sources[0][split] == pytest.approx(sources[1][split], rel=1e-6)


def test_what_is_not_lora_is_streamed_beside_it(
    given: Given, tiny: Path, adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter that was trained with a whole module, and one model that is no adapter in another merge."""
    name = "model.layers.0.mlp.gate_proj.weight"
    path = adapters["b"] / "adapter_model.safetensors"
    trained = load_file(tiny / "b" / "model.safetensors")[name]
    save_file({**load_file(path), "base_model.model.model.layers.0.mlp.gate_proj.weight": trained}, path)
    described = json.loads((adapters["b"] / "adapter_config.json").read_text()) | {"modules_to_save": ["gate_proj"]}
    (adapters["b"] / "adapter_config.json").write_text(json.dumps(described))
    found, evaluator, lines = measured(given(), 10)
    assert {tensor.name for tensor in found.plan.tensors} - in_factors(evaluator) == {name}
    mixed = given()
    mixed["models"][0]["path"] = str(tiny / "a")
    assert in_factors(measured(mixed, 10)[1]) == set()
    monkeypatch.setattr(factored, "_place", lambda _: object())
    _, streamed, _ = measured(given(), 10)
    ours, theirs = (one.nats(lines, [0.6, 1.1, 0.9]) for one in (evaluator, streamed))
    for split in NAMES:
        assert ours[split] == pytest.approx(theirs[split], rel=1e-6)


@pytest.mark.parametrize(("merge_adapters", "lines"), [(False, 12), (True, 12), (True, 100)])
def test_the_merged_model_has_the_loss_that_the_search_saw(
    given: Given, tmp_path: Path, tiny: Path, merge_adapters: bool, lines: int
) -> None:
    config = given(lines)
    config["peft_config"] = {"merge_adapters": merge_adapters}
    tuner = MergeTuner(config)
    report = tuner.tune()
    assert report.method == "gradient"
    assert report.best.value < report.trials[0].value
    tuner.merge()
    out = tmp_path / "out"
    assert (out / "adapter_config.json").exists() == merge_adapters
    if merge_adapters:
        model = AutoModelForCausalLM.from_pretrained(tiny / "base", dtype=torch.float64).eval()
        stored = load_file(out / "adapter_model.safetensors")
        written = json.loads((out / "adapter_config.json").read_text())
        assert written["r"] == written["lora_alpha"]
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                module = f"base_model.model.{name.removesuffix('.weight')}"
                if f"{module}.lora_A.weight" in stored:
                    a, b = (stored[f"{module}.lora_{part}.weight"].double() for part in "AB")
                    parameter.add_(b @ a)
                if f"{module}.lora_embedding_A" in stored:
                    a, b = (stored[f"{module}.lora_embedding_{part}"].double() for part in "AB")
                    parameter.add_((b @ a).T)
    else:
        model = AutoModelForCausalLM.from_pretrained(out).eval()
    own = encoded({name: lines_of(name, lines) for name in NAMES}, AutoTokenizer.from_pretrained(tiny / "base"))
    assert per_token(nats_of(model, own, 0, 4096), own) == pytest.approx(dict(report.best.losses), rel=1e-4)


@pytest.mark.parametrize("method", ["svd", "peft_linear"])
def test_merged_adapters_that_are_no_sum_have_no_gradient(given: Given, method: str) -> None:
    config = given(search={"method": "gradient"})
    for model, path in zip(config["models"], [config["models"][0]["path"]] * 3, strict=True):
        model["path"] = path
    config["peft_config"] = {"merge_adapters": True}
    config["options"] |= {"merge_method": method}
    with pytest.raises(ConfigError, match="there is no gradient: the output is a composition"):
        MergeTuner(config).tune()


@pytest.mark.parametrize(("start", "stop"), [(0, 35), (7, 21), (3, 24)])
def test_a_source_in_factors_is_the_source_of_whole_tensors(tmp_path: Path, start: int, stop: int) -> None:
    """The last input may have factors too: a base that is an adapter itself."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    base = drawn(5, 7)
    stored = MemoryCheckpoint("stored", {"w": base})
    inputs: list[tuple[Checkpoint, str]] = []
    for rank in (2, 0, 3):
        left, right = drawn(5, rank), drawn(rank, 7)
        model = MemoryCheckpoint(f"of rank {rank}", {"w": base + left @ right})
        pairs = [(left, right)] if rank else []
        model.apart = lambda _, pairs=pairs: Apart(stored, "w", pairs)  # type: ignore[method-assign,misc]
        inputs.append((model, "w"))
    whole = Source("w", (5, 7), inputs, torch.float64, torch.device("cpu"))
    apart = with_factors({"w": whole}, tmp_path)["w"]
    assert isinstance(apart, FactoredSource)
    coefficients, gradient = drawn(3), drawn(stop - start)
    torch.testing.assert_close(apart.merged(coefficients, start, stop), whole.merged(coefficients, start, stop))
    torch.testing.assert_close(apart.products(gradient, start, stop), whole.products(gradient, start, stop))
    given = drawn(4, 7)
    torch.testing.assert_close(
        apart.applied(given, coefficients), given @ whole.merged(coefficients, 0, 35).view(5, 7).T
    )
