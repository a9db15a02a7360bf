"""The terms that a strategy splits its merge into, as others get them, and answers that are no terms."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import frozen
from conftest import write_model
from modelmerger import PluginError, Terms, Traits, hookimpl, split_merge, varying
from modelmerger.engine.merge import Merge
from modelmerger.engine.splitting import split_tensor
from modelmerger.testing import plan_in_memory

BASE = {"a": torch.arange(6.0).view(2, 3), "v": torch.ones(4)}
MODELS = [
    {
        name: tensor + torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed))
        for name, tensor in BASE.items()
    }
    for seed in range(3)
]


class Signs:
    """Adds up the signs of updates, scaled by what it measured of them."""

    traits = Traits(models=(1, None), inputs="updates")

    @frozen(kw_only=True)
    class Options:
        scale: float = varying(default=0.5)

    @hookimpl
    def measure_tensor(self, tensors: Any) -> Any:
        return torch.stack([tensor.double().abs().sum() for tensor in tensors])

    @hookimpl
    def merge_tensor(self, tensors: Any, weights: Any, measurements: Any, options: Any) -> Any:
        lengths = measurements[0].to(tensors[0].dtype)
        return options.scale * sum(w * n * t.sign() for w, n, t in zip(weights, lengths, tensors, strict=True))

    @hookimpl
    def split_tensor(self, tensors: Any, measurements: Any) -> Any:
        lengths = measurements[0].to(tensors[0].dtype)

        def weigh(weights: Any, _: Any, options: Any) -> Any:
            return [options.scale * weight for weight in weights]

        return Terms([n * t.sign() for n, t in zip(lengths, tensors, strict=True)], weigh, follows=["scale"])


def terms_of(strategy: Any, weights: list[float], **options: Any) -> tuple[Any, dict[str, Terms | None]]:
    planned = plan_in_memory(strategy, MODELS, BASE, weights, options=options)
    merge = Merge(planned.plan, planned.checkpoints, planned.hooks, planned.settings)
    return planned, {tensor.name: split_tensor(merge, index) for index, tensor in enumerate(planned.plan.tensors)}


def added_up(terms: Terms, weights: list[float], options: Any) -> Any:
    coefficients = terms.weigh(weights, [None] * len(weights), options)
    return sum(c * term for c, term in zip(coefficients, terms.terms, strict=True))


def test_terms_are_those_of_the_whole_tensor_with_what_was_measured_of_it() -> None:
    planned, found = terms_of(Signs(), [1.0, 0.5, 2.0])
    again = plan_in_memory(Signs(), MODELS, BASE, [0.25, -1.0, 1.5], options={"scale": 0.75})
    for name, merged in again.merge().items():
        terms = found[name]
        assert terms is not None
        sums = added_up(terms, [0.25, -1.0, 1.5], again.plan.tensors[0].options)
        torch.testing.assert_close(BASE[name] + sums.view(BASE[name].shape), merged.to(sums.dtype), check_dtype=False)
    assert planned.plan.tensors[0].granularity == "elementwise"


def test_models_of_weight_0_have_no_terms_and_without_any_model_there_are_none() -> None:
    _, found = terms_of(Signs(), [1.0, 0.0, 2.0])
    assert [len(terms.terms) for terms in found.values() if terms is not None] == [2, 2]
    _, found = terms_of(Signs(), [0.0, 0.0, 0.0])
    assert [len(terms.terms) for terms in found.values() if terms is not None] == [0, 0]


def test_what_is_finished_afterwards_is_no_sum() -> None:
    class Finished(Signs):
        @hookimpl
        def finish_tensor(self, merged: Any) -> None:
            merged.clamp_(max=3)

    _, found = terms_of(Finished(), [1.0, 0.5, 2.0])
    assert set(found.values()) == {None}


class Silent(Signs):
    @hookimpl
    def split_tensor(self) -> Any:
        return None


def test_a_strategy_may_say_none() -> None:
    _, found = terms_of(Silent(), [1.0, 0.5, 2.0])
    assert set(found.values()) == {None}


def linear(tensors: Any, terms: Any) -> Any:
    return Terms(terms, lambda weights, _, __: weights)


ANSWERS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda tensors: tensors[0] * 2, "gave float64 of shape .* where Terms or None is due"),
    (lambda tensors: linear(tensors, tensors[0] * 2), "gave float64 .* where a list of terms is due"),
    (lambda tensors: linear(tensors, [t.float() for t in tensors]), "gave float32 .* where a tensor, float64, is due"),
    (lambda tensors: linear(tensors, list(tensors)), "gave back one of its inputs"),
    (lambda tensors: linear(tensors, [t[:1] * 2 for t in tensors]), "gave a term of shape"),
    (lambda tensors: linear(tensors, [(t[:, None] * 2, t[None] * 2) for t in tensors]), "gave a term of shape"),
    (lambda tensors: linear(tensors, ["a", "b"]), "gave str where a tensor"),
    (lambda tensors: Terms([t * 2 for t in tensors], lambda *_: [1.0], "scale"), "gave follows='scale' where"),
    (lambda tensors: linear(tensors, [t.mul_(2) * 2 for t in tensors]), "changed its inputs"),
]


@pytest.mark.parametrize(("answer", "message"), ANSWERS)
def test_an_answer_that_is_no_terms_names_the_strategy(answer: Callable[[Any], Any], message: str) -> None:
    class Wrong(Signs):
        @hookimpl
        def split_tensor(self, tensors: Any) -> Any:
            return answer(tensors)

    with pytest.raises(PluginError, match=f"split_tensor {message}"):
        terms_of(Wrong(), [1.0, 0.5, 2.0])


@pytest.mark.parametrize("numbers", [[1.0], [1.0, float("nan"), 2.0], "abc", None, ["a", "b", "c"]])
def test_numbers_that_are_none_name_it_too(numbers: Any) -> None:
    class Wrong(Signs):
        @hookimpl
        def split_tensor(self, tensors: Any) -> Any:
            return Terms([tensor * 2 for tensor in tensors], lambda *_: numbers)

    _, found = terms_of(Wrong(), [1.0, 0.5, 2.0])
    terms = found["a"]
    assert terms is not None
    with pytest.raises(PluginError, match=r"split_tensor weighs with .* where 3 finite numbers are due"):
        terms.weigh([1.0, 0.5, 2.0], [None] * 3, None)


def test_what_weighing_raises_names_it_too() -> None:
    class Wrong(Signs):
        @hookimpl
        def split_tensor(self, tensors: Any) -> Any:
            return Terms([tensor * 2 for tensor in tensors], lambda: [1.0])  # type: ignore[arg-type]  # wrong on purpose

    _, found = terms_of(Wrong(), [1.0, 0.5, 2.0])
    terms = found["a"]
    assert terms is not None
    with pytest.raises(PluginError, match="split_tensor"):
        terms.weigh([1.0, 0.5, 2.0], [None] * 3, None)


def test_a_config_is_split_by_name_and_linear_tensors_are_left_out(tmp_path: Path) -> None:
    tensors = {"model.layers.0.w": torch.randn(6, 4), "norm.weight": torch.ones(3)}
    paths = [
        write_model(tmp_path / name, {n: t * k for n, t in tensors.items()}) for k, name in ((1, "base"), (2, "a"))
    ]
    config = {"strategy": "tsv_m", "base_model": str(paths[0]), "models": [{"path": str(paths[1])}]}
    ((name, terms),) = split_merge(config)
    assert name == "model.layers.0.w"
    assert terms is not None
    ((left, right),) = terms.terms
    torch.testing.assert_close(left @ right, tensors[name].to(left.dtype), atol=1e-5, rtol=1e-5)
    config = {"strategy": "weighted", "models": [{"path": str(path)} for path in paths]}
    assert list(split_merge(config)) == []
