"""The kit for tests of plugins: its examples work, and it does what merges and validations do."""

import doctest
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from blocks import contents
from conftest import CONFIG, random_tensors, write_model
from inputs.tiny_models import TEXTS, load, tied
from modelmerger import (
    ConfigError,
    LabelScores,
    MergeConfig,
    ModelCompatibilityError,
    NumericError,
    ValidationSettings,
    merge,
    testing,
)
from modelmerger.testing import MemoryCheckpoint, merge_in_memory, plan_in_memory, settings_of, subject_of
from safetensors.torch import load_file

from tests.core.plugging import WEIGHTS_SQUARED, install

__all__ = ["tied"]
OBSERVER = """
from modelmerger import hookimpl

@hookimpl
def observe_slice(merged):
    return {"elements": merged.numel()}
"""
BUILT_IN = ("weighted", "sequential", "task_arithmetic", "slerp")


@pytest.mark.parametrize("name", testing.__all__)
def test_whatever_it_offers_is_documented_and_its_examples_work(name: str) -> None:
    offered = getattr(testing, name)
    assert inspect.getdoc(offered)
    examples = doctest.DocTestFinder(recurse=False).find(offered, name, globs=vars(testing) | {"torch": torch})
    for example in examples:
        result = doctest.DocTestRunner(optionflags=doctest.FAIL_FAST).run(example)
        assert result.failed == 0


def test_functions_and_the_checkpoint_have_examples() -> None:
    without = {name for name in testing.__all__ if not re.search(">>> |```python", getattr(testing, name).__doc__)}
    assert without == {"Planned"}


@pytest.mark.parametrize("strategy", BUILT_IN)
def test_what_is_merged_in_memory_is_what_is_merged_on_the_disk(strategy: str, tmp_path: Path) -> None:
    base = random_tensors(0)
    tensors = [random_tensors(seed, near=base) for seed in (1, 2)]
    paths = [write_model(tmp_path / name, each) for name, each in zip("ab", tensors, strict=True)]
    on_disk = str(write_model(tmp_path / "base", base)) if strategy == "task_arithmetic" else None
    models = [{"path": str(path), "weight": weight} for path, weight in zip(paths, (1, 0.5), strict=True)]
    merge(MergeConfig(strategy, models, on_disk, str(tmp_path / "merged")))

    checkpoints = [MemoryCheckpoint(f"model_{i}", each, CONFIG) for i, each in enumerate(tensors)]
    found = merge_in_memory(strategy, checkpoints, base if on_disk else None, weights=[1, 0.5])

    expected = load_file(tmp_path / "merged/model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_strategy_that_is_installed_later_is_found(distribution: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match="no strategy is named 'squares'"):
        plan_in_memory("squares", [{"t": torch.ones(1)}])
    install(distribution, [("strategy", "squares", WEIGHTS_SQUARED)])
    assert merge_in_memory("squares", [{"t": torch.ones(1)}], weights=[3])["t"].tolist() == [9]


def test_what_a_merge_refuses_is_refused() -> None:
    good, bad = {"t": torch.ones(2)}, {"t": torch.tensor([1.0, float("nan")])}
    with pytest.raises(NumericError, match="'model_1' holds 1 NaN"):
        merge_in_memory("weighted", [good, bad])
    with pytest.raises(
        ModelCompatibilityError, match=r"ids.weight: holds I64 numbers, .* 'model_1' differs from 'model_0'"
    ):
        merge_in_memory("weighted", [{"ids.weight": torch.arange(3)}, {"ids.weight": torch.arange(3) + 1}])
    with pytest.raises(ConfigError, match="weights: must be one a model: 1 given for 2 models"):
        plan_in_memory("weighted", [good, good], weights=[1])


def test_what_was_counted_and_observed_is_what_the_manifest_would_say(distribution: Callable[..., Path]) -> None:
    install(distribution, [("plugin", "watch", OBSERVER)])
    base, model = {"w": torch.zeros(5), "v": torch.zeros(2)}, {"w": torch.arange(5.0), "v": torch.ones(2)}
    options = {"clamp_weights": True, "clamp_range": [-2.5, 2.5]}
    staging = plan_in_memory("task_arithmetic", [model], base, options=options).stage(workers=2, slice_elements=2)
    assert staging.counts == {"clamped values": 2}
    assert staging.observed == {name: {"plugin watch: elements": len(each)} for name, each in base.items()}


def test_units_may_run_in_another_order_and_on_top_of_others() -> None:
    merge = plan_in_memory("weighted", [random_tensors(1), random_tensors(2)], options={"max_shard_size": 600})
    begun = merge.stage(order=lambda units: units[:-1])
    assert len(begun.records) == len(merge.plan.layout.files) - 1 > 1
    whole = merge.stage(order=lambda units: units[::-1])
    assert contents(begun) != contents(whole) == contents(merge.stage(staged=begun))


@pytest.mark.parametrize("how", [{"workers": -1}, {"workers": 0}, {"slice_elements": 0}], ids=str)
def test_numbers_below_one_are_refused(how: dict[str, int]) -> None:
    ((name, number),) = how.items()
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got {number}$"):
        plan_in_memory("weighted", [{"w": torch.ones(3)}]).merge(**how)


def test_random_numbers_of_a_tensor_that_there_is_not_are_refused_with_a_near_name() -> None:
    merge = plan_in_memory("weighted", [{"norm.weight": torch.ones(3)}])
    with pytest.raises(KeyError, match=r"no merged tensor is named 'norm\.wieght', did you mean 'norm\.weight'\?"):
        merge.random("norm.wieght", 0)


def test_reads_are_remembered() -> None:
    models = [MemoryCheckpoint(name, {"t": torch.arange(6.0).half()}) for name in ("model_0", "model_1")]
    buffer = bytearray(4)
    models[0].read("t", 2, 4, memoryview(buffer))
    assert torch.frombuffer(buffer, dtype=torch.float16).tolist() == [2, 3]
    merge_in_memory("weighted", models, weights=[0, 1])
    assert (models[0].reads, models[0].bytes_read) == ([("t", 2, 4)], 4)
    assert (models[1].reads, models[1].bytes_read) == ([("t", 0, 6)], 12)


def test_settings_are_those_of_the_config() -> None:
    config: dict[str, Any] = {"strategy": "slerp", "models": [{"path": "a"}, {"path": "b"}]}
    assert settings_of(config | {"options": {"epsilon": 0.5}}).strategy_options.epsilon == 0.5
    with pytest.raises(ConfigError, match="exactly two models"):
        settings_of(config | {"models": [{"path": "a"}]})


def test_a_subject_is_measured_as_in_a_validation(tied: SimpleNamespace) -> None:
    def score(texts: Any) -> LabelScores:
        return LabelScores(scorer="none", stated="", labels=("x",), rows=[None for _ in texts])

    settings = ValidationSettings(max_new_tokens=3, seed=5)
    source = (load(tied.b)[0], tied.words)
    subject = subject_of(
        load(tied.a)[0], tied.words, settings, {"x": TEXTS[:1]}, {"y": TEXTS[1:3]}, {"other": source}, score
    )
    assert (subject.name, subject.base, list(subject.sources)) == ("model", None, ["other"])
    assert (subject.texts, subject.prompts) == ({"x": TEXTS[:1]}, {"y": TEXTS[1:3]})
    assert subject.open("other").model is source[0]
    assert [answer.prompt for answer in subject.answers()["y"]] == TEXTS[1:3]
    assert all(len(answer.ids) <= 3 for answer in subject.answers()["y"])
    assert subject.score_labels(["a"]).rows == [None]
    assert subject.language.encode(TEXTS[0]) == tied.words.encode(TEXTS[0], add_special_tokens=False)
    installed = subject_of(load(tied.a)[0], tied.words)
    assert installed.score_labels(["شلونك"]).best_labels() == ["gulf"]
