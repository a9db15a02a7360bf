"""What a strategy of anyone can be: the smallest real ones, as installed distributions, against float64 references."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blocks import set_block
from modelmerger import ConfigError, MergeConfig, ModelCompatibilityError, ModelMerger, PluginError
from modelmerger.testing import merge_in_memory, plan_in_memory

from tests.core.plugging import install

Distribution = Callable[..., Path]
Tensors = Mapping[str, torch.Tensor]

DARE = '''
"""DARE: each element of a task vector is kept with probability `density`, and what is kept is divided by it.

Yu et al. 2024, "Language models are super Mario", https://arxiv.org/abs/2311.03099, section 3.2.
"""

from attrs import frozen
from modelmerger import Traits, hookimpl, must_be_between, varying

traits = Traits(models=(1, None), inputs="updates")


@frozen(kw_only=True)
class ModelOptions:
    density: float = varying(default=1.0, check=must_be_between(0, 1, open_below=True))


@hookimpl
def merge_tensor(tensors, inputs, weights, model_options, random):
    kept = [
        weight / told.density * tensor * (random(model) < told.density)
        for tensor, model, weight, told in zip(tensors, inputs, weights, model_options, strict=True)
    ]
    return sum(kept)
'''
SPECTRAL = """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, None))

@hookimpl
def choose_view(tensor_name, shape):
    return "whole" if len(shape) == 2 and "embed" not in tensor_name else "linear"

@hookimpl
def find_coefficients(weights):
    return [weight / sum(weights) for weight in weights]

@hookimpl
def merge_tensor(tensors):
    u, _, v = torch.linalg.svd(sum(tensors) / len(tensors), full_matrices=False)
    return u * (sum(torch.linalg.svdvals(tensor) for tensor in tensors) / len(tensors)) @ v
"""
PLACES = """
from modelmerger import Traits, hookimpl
import torch

traits = Traits(models=(1, None), granularity={granularity!r})

@hookimpl
def merge_tensor(tensors, offset, shape, inputs):
    count = torch.arange(offset, offset + tensors[0].numel(), dtype=tensors[0].dtype)
    assert tensors[0].numel() <= torch.Size(shape).numel() and len(inputs) == len(tensors)
    return count.view_as(tensors[0]) + 1000 * inputs[0]
"""
ADDING = """
from attrs import frozen
from modelmerger import Traits, hookimpl, varying

traits = Traits(models=(1, None), inputs="updates"{more})

@frozen(kw_only=True)
class Options:
    scale: float = varying(default=1.0)

@hookimpl
def find_coefficients(weights, options, gram):
    assert gram is None or len(gram) == len(weights)
    {body}
"""


def tensors(seed: int, near: Tensors | None = None, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "model.embed_tokens.weight": (30, 8),
        "model.layers.0.w": (40, 70),
        "model.layers.1.w": (40, 70),
        "norm": (8,),
    }
    made = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {name: (value * 0.02 + (near[name].float() if near else 0)).to(dtype) for name, value in made.items()}


@pytest.fixture
def base() -> dict[str, torch.Tensor]:
    return tensors(0)


def test_dare_keeps_what_chance_keeps_and_is_right_in_the_mean(
    distribution: Distribution, base: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A density a model: one of them by layer."""
    install(distribution, [("strategy", "dare", DARE)])
    models = [tensors(1, base, torch.float32), tensors(2, base, torch.float32)]
    told: list[dict[str, Any]] = [{"density": 0.25}, {"density": [1, 0.5]}]
    whole = {name: value.float() for name, value in base.items()}
    merge = plan_in_memory("dare", models, whole, weights=[1, 0.5], model_options=told)
    merged = merge.merge()
    for name, value in merged.items():
        updates = [(model[name].double() - whole[name].double()) for model in models]
        second = 1.0 if name.endswith("embed_tokens.weight") or ".0." in name else 0.5
        numbers = [merge.random(name, i) for i in range(2)]
        expected = whole[name].double()
        for update, weight, density, number in zip(updates, (1, 0.5), (0.25, second), numbers, strict=True):
            expected = expected + weight / density * update * (number < density)
        torch.testing.assert_close(value.double(), expected, rtol=0, atol=2**-24)
    set_block(monkeypatch, 1 << 10)
    again = plan_in_memory("dare", models, whole, weights=[1, 0.5], model_options=told)
    cut = again.merge(slice_elements=33, workers=2)
    assert all(torch.equal(merged[name], cut[name]) for name in merged)


def test_another_seed_keeps_other_elements_and_a_model_of_weight_0_changes_none_of_the_others(
    distribution: Distribution, base: Tensors
) -> None:
    install(distribution, [("strategy", "dare", DARE)])
    models = [tensors(1, base), tensors(2, base)]
    dropped = [{"density": 0.5}] * 2
    first, same, other, alone = (
        merge_in_memory("dare", models, base, weights=weights, model_options=dropped, options={"seed": seed})
        for seed, weights in ((1, [1, 1]), (1, [1, 1]), (2, [1, 1]), (1, [0, 1]))
    )
    name = "model.layers.0.w"
    assert torch.equal(first[name], same[name])
    assert not torch.equal(first[name], other[name])
    kept = alone[name] != base[name]
    whole = merge_in_memory("dare", models, base, weights=[0, 1], options={"seed": 1})[name]
    both = plan_in_memory("dare", models, base, weights=[1, 1], model_options=dropped, options={"seed": 1})
    assert torch.equal(kept, (both.random(name, 1) < 0.5) & (whole != base[name]))


def test_nothing_but_the_base_is_left_where_all_weights_are_0(distribution: Distribution, base: Tensors) -> None:
    install(distribution, [("strategy", "dare", DARE)])
    weights = [{"*layers.1*": 0.0, "default": 1.0}]
    merged = merge_in_memory("dare", [tensors(1, base)], base, weights=weights)
    assert torch.equal(merged["model.layers.1.w"], base["model.layers.1.w"])
    assert not torch.equal(merged["model.layers.0.w"], base["model.layers.0.w"])


def test_a_strategy_on_updates_needs_a_base(distribution: Distribution) -> None:
    install(distribution, [("strategy", "dare", DARE)])
    with pytest.raises(ConfigError, match=r"dare needs base_model\. Give the path"):
        MergeConfig(strategy="dare", models=[{"path": "./a"}])


def test_densities_are_checked_number_by_number(distribution: Distribution) -> None:
    install(distribution, [("strategy", "dare", DARE)])
    with pytest.raises(ConfigError) as caught:
        MergeConfig(
            strategy="dare",
            base_model="./c",
            models=[{"path": "./a", "density": [0.5, 1.5]}, {"path": "./b", "density": {"*mlp*": -1}, "densty": 1}],
        )
    assert caught.value.lines() == [
        "models[0].density: must be in (0, 1], got 1.5",
        "models[1]: unknown key 'densty', did you mean 'density'?",
        "models[1].density: '*mlp*' must be in (0, 1], got -1.0",
    ]


@pytest.mark.parametrize("blocks", [1 << 24, 1 << 10])
def test_a_spectral_strategy_is_whole_for_matrices_and_linear_for_the_rest(
    distribution: Distribution, blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(distribution, [("strategy", "spectral", SPECTRAL)])
    set_block(monkeypatch, blocks)
    models = [tensors(1, dtype=torch.float32), tensors(2, dtype=torch.float32)]
    merge = plan_in_memory("spectral", models, weights=[3, 1])
    assert [(t.action, t.granularity) for t in merge.plan.tensors] == [
        ("combine", "elementwise"), ("merge", "whole"), ("merge", "whole"), ("combine", "elementwise"),
    ]  # fmt: skip
    merged = merge.merge()
    for name, value in merged.items():
        a, b = (model[name].double().numpy() for model in models)
        if name in ("norm", "model.embed_tokens.weight"):
            expected = 0.75 * a + 0.25 * b
        else:
            u, _, v = np.linalg.svd((a + b) / 2, full_matrices=False)
            expected = u * ((np.linalg.svd(a)[1] + np.linalg.svd(b)[1]) / 2) @ v
        np.testing.assert_allclose(value.double().numpy(), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("granularity", ["elementwise", "rowwise", "whole"])
def test_a_slice_says_where_it_lies(distribution: Distribution, granularity: str) -> None:
    install(distribution, [("strategy", "places", PLACES.format(granularity=granularity))])
    models = [{"w": torch.zeros(50, 7)}] * 2
    merged = plan_in_memory("places", models, weights=[0, 1]).merge(slice_elements=20)["w"]
    assert torch.equal(merged, torch.arange(350.0).view(50, 7) + 1000)


@pytest.mark.parametrize(
    ("more", "body"),
    [
        ("", "return [options.scale * w for w in weights]"),
        (", gram=True", "return gram and [options.scale * w for w in weights]"),
    ],
)
def test_a_linear_strategy_on_updates_says_nothing_of_the_base(
    distribution: Distribution, base: Tensors, more: str, body: str
) -> None:
    """And is task arithmetic, bit for bit."""
    install(distribution, [("strategy", "adding", ADDING.format(more=more, body=body))])
    models = [tensors(1, base), tensors(2, base)]
    ours = merge_in_memory("adding", models, base, weights=[0.7, -0.4], options={"scale": 0.5})
    theirs = merge_in_memory("task_arithmetic", models, base, weights=[0.7, -0.4], options={"scaling_factor": 0.5})
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_gram_matrix_of_a_strategy_on_updates_is_that_of_the_updates(
    distribution: Distribution, base: Tensors
) -> None:
    body = "return gram and [row[0] for row in gram]"
    install(distribution, [("strategy", "adding", ADDING.format(more=", gram=True", body=body))])
    models = [tensors(1, base, torch.float32), tensors(2, base, torch.float32)]
    start = {name: value.float() for name, value in base.items()}
    merged = merge_in_memory("adding", models, start)["norm"]
    first, second = (model["norm"].double() - start["norm"].double() for model in models)
    expected = start["norm"].double() + first.dot(first) * first + first.dot(second) * second
    torch.testing.assert_close(merged.double(), expected, rtol=1e-6, atol=1e-9)


def test_the_factor_of_slerp_varies_by_layer_and_pattern() -> None:
    """A recipe that everybody copies: attention and MLP in opposite directions, half of both for the rest."""

    def model(seed: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        names = [f"model.layers.{i}.{part}.weight" for i in range(5) for part in ("self_attn.q", "mlp.up")]
        return {name: torch.randn(6, 4, generator=generator) for name in [*names, "model.norm.weight"]}

    first, second = model(1), model(2)
    attention, mlp = [0, 0.5, 0.3, 0.7, 1], [1, 0.5, 0.7, 0.3, 0]
    factor = {"*self_attn*": attention, "*mlp*": mlp, "default": 0.5}
    merge = plan_in_memory("slerp", [first, second], options={"interpolation_factor": factor})
    merged = merge.merge()
    for name, value in merged.items():
        layer = int(name.split(".")[2]) if "layers" in name else 0
        t = attention[layer] if "attn" in name else mlp[layer] if "mlp" in name else 0.5
        alone = merge_in_memory("slerp", [first, second], options={"interpolation_factor": float(t)})[name]
        assert torch.equal(value, alone), name
    shown = {t["name"]: t["options"] for t in merge.plan.as_dict()["tensors"]}
    assert shown["model.layers.3.mlp.up.weight"] == {"interpolation_factor": 0.3}
    assert shown["model.norm.weight"] == {"interpolation_factor": 0.5}


def test_patterns_of_options_are_held_against_the_tensors(tmp_path: Path, models: Any, config: dict[str, Any]) -> None:
    config |= {"strategy": "slerp", "options": {"interpolation_factor": {"*atention*": 0.3, "default": 0.5}}}
    with pytest.raises(
        (ConfigError, ModelCompatibilityError),
        match=r"options\.interpolation_factor: the pattern '\*atention\*' matches no tensor",
    ):
        ModelMerger(MergeConfig(**config)).plan()


VIEWS = """
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, None))

@hookimpl
def choose_view():
    return {view!r}

@hookimpl
def {hook}({argument}):
    return {argument}
"""


@pytest.mark.parametrize(
    ("view", "hook", "argument", "problem"),
    [
        ("linear", "merge_tensor", "tensors", "'linear', which needs the hook find_coefficients"),
        ("whole", "find_coefficients", "weights", "'whole', which needs the hook merge_tensor"),
        ("matrix", "merge_tensor", "tensors", "'matrix' where linear or elementwise or rowwise or whole is due"),
    ],
)
def test_a_view_that_a_strategy_cannot_have_is_refused(
    distribution: Distribution, base: Tensors, view: str, hook: str, argument: str, problem: str
) -> None:
    install(distribution, [("strategy", "views", VIEWS.format(view=view, hook=hook, argument=argument))])
    with pytest.raises(PluginError, match=f"choose_view gave {problem}"):
        merge_in_memory("views", [base, base])
