"""A composition that is none is blamed on whoever gave it, in one sentence."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import write_model
from modelmerger import ConfigError, MergeConfig, ModelMerger, NumericError, PluginError
from modelmerger.testing import plan_in_memory

from tests.core.plugging import install

Distribution = Callable[..., Path]
SOURCE = """
from modelmerger import Checkpoint, Composition, DeferredComposition, TensorInfo, TensorSelection, Traits, hookimpl

traits = Traits()

class Made(Checkpoint):
    def __init__(self, tensors):
        self.name, self.tensors = "made", tensors

    def read(self, tensor, start, stop, buffer):
        buffer[:] = bytes.fromhex("0000807f") * (stop - start)

@hookimpl
def compose_model(checkpoints):
    model = checkpoints[0]
    return {answer}
"""
GAVE = {
    "7": "gave 7 instead of a Composition, a DeferredComposition or None",
    "model": "instead of a Composition, a DeferredComposition or None",
    "None": "gave None, and the strategy has no other way to merge",
    "Composition(7)": "gave the checkpoint 7 instead of a Checkpoint",
    "Composition(Made({}))": "gave the tensors {} instead of at least one TensorInfo by name",
    "Composition(Made({'w': (3,)}))": "gave the tensors {'w': (3,)} instead of at least one TensorInfo by name",
    "Composition(model, 'F32')": "gave the dtypes 'F32' instead of dtypes by tensor",
    "Composition(model, {'v': 'F32'})": "gave a dtype for 'v' instead of one for a tensor of its checkpoint",
    "Composition(model, {'w': 'float32'})": "w: {who}: compose_model gave the dtype 'float32' instead of one that safetensors has",
    "Composition(model, {'ids': 'F32'})": "ids: {who}: compose_model gave the dtype F32 instead of I64",
    "Composition(model, {'w': 'I64'})": "w: {who}: compose_model gave the dtype I64 instead of F32",
    "Composition(model, writes='')": "gave writes='' instead of a word for what is written",
    "Composition(model, stem='../model')": "gave the stem '../model' instead of the beginning of a plain file name",
    "Composition(model, documents=[b'x'])": "gave the documents [b'x'] instead of contents by file name",
    "Composition(model, documents={'x': 'text'})": "gave the document 'x' instead of a plain file name with bytes",
    "Composition(model, documents={'../x': b''})": "gave the document '../x' instead of a plain file name with bytes",
    "Composition(model, documents={'modelmerger.json': b''})": "gave the document 'modelmerger.json' instead of one whose name is free",
    "Composition(model, documents={'model.safetensors': b''})": "gave the document 'model.safetensors' instead of one whose name is free",
    "Composition(model, memory=-1)": "gave memory=-1 instead of a number of bytes",
    "Composition(model, relative_error='small')": "gave relative_error='small' instead of a number or None",
    "Composition(model, observed={'w': 3})": "gave observed={'w': 3} instead of numbers by tensor and statistic",
    "Composition(model, notes=['hm'])": "gave the notes ['hm'] instead of Problems",
    "DeferredComposition(lambda: None)": "gave None instead of a Composition",
    "DeferredComposition(lambda: Composition(7))": "gave the checkpoint 7 instead of a Checkpoint",
    "DeferredComposition(lambda: 1 / 0)": "raised ZeroDivisionError in compose_model: division by zero",
    "DeferredComposition(lambda: Composition(model), notes=['hm'])": "gave the notes ['hm'] instead of Problems",
    "1 / 0": "raised ZeroDivisionError in compose_model: division by zero",
}  # fmt: skip
WHO = "strategy 'wrong' from acme-merge 1.0"


@pytest.mark.parametrize("answer", GAVE)
def test_a_wrong_composition_is_blamed_on_the_plugin(distribution: Distribution, answer: str) -> None:
    install(distribution, [("strategy", "wrong", SOURCE.replace("{answer}", answer))])
    with pytest.raises(PluginError) as refused:
        plan_in_memory("wrong", [{"w": torch.ones(3), "ids": torch.arange(3)}])
    (line,) = refused.value.lines()
    assert GAVE[answer].replace("{who}", WHO) in line
    assert WHO in line


def test_a_nan_that_a_composition_makes_of_finite_inputs_is_blamed_on_the_plugin(distribution: Distribution) -> None:
    source = SOURCE.replace("{answer}", "Composition(TensorSelection('x', {'w': (Made(model.tensors), 'w')}))")
    source = source.replace(
        "    def read", "    def made_of(self, tensor):\n        return [(MODEL, tensor)]\n\n    def read"
    )
    source = source.replace("    model = checkpoints[0]", "    global MODEL\n    MODEL = model = checkpoints[0]")
    install(distribution, [("strategy", "wrong", source)])
    with pytest.raises(PluginError) as refused:
        plan_in_memory("wrong", [{"w": torch.ones(3)}]).merge()
    (line,) = refused.value.lines()
    assert line == f"w: {WHO}: compose_model made a NaN or an infinity of finite inputs."


def test_a_plugin_may_compose_for_a_strategy_that_does_not(distribution: Distribution) -> None:
    """And is asked before one that does."""
    other = SOURCE.replace("{answer}", "Composition(checkpoints[1])")
    mine = SOURCE.replace("{answer}", "Composition(checkpoints[0])")
    install(distribution, [("plugin", "last", other), ("strategy", "first", mine)])
    models = [{"w": torch.zeros(3)}, {"w": torch.ones(3)}]
    for strategy in ("weighted", "first"):
        merge = plan_in_memory(strategy, models)
        assert merge.plan.composed
        assert torch.equal(merge.merge()["w"], torch.ones(3))


def test_what_observes_slices_sees_none_of_a_composition(distribution: Distribution) -> None:
    seen = "from modelmerger import hookimpl\n@hookimpl\ndef observe_slice(merged):\n    return {'seen': 1}"
    composing = SOURCE.replace("{answer}", "Composition(model)")
    install(distribution, [("plugin", "watching", seen), ("strategy", "composing", composing)])
    models = [{"w": torch.ones(3)}]
    assert plan_in_memory("composing", models).stage().observed == {}
    assert plan_in_memory("weighted", models).stage().observed != {}


@pytest.mark.parametrize(
    ("kind", "strategy", "answer", "said"),
    [
        ("strategy", "composing", "Composition(model, writes='adapter')", "writes no whole model but adapter"),
        ("plugin", "weighted", "Composition(model, updates=True)", "merges what its models change of their base"),
        ("strategy", "composing", "DeferredComposition(lambda: None)", "depends on weights in what it writes"),
    ],
)
def test_a_composition_of_something_else_than_a_model_cannot_be_a_model_of_another_merge(
    distribution: Distribution, tmp_path: Path, kind: str, strategy: str, answer: str, said: str
) -> None:
    install(distribution, [(kind, "composing", SOURCE.replace("{answer}", answer))])
    path = str(write_model(tmp_path / "a", {"w": torch.ones(3)}, None))
    inner = {"strategy": strategy, "models": [{"path": path}]}
    config = MergeConfig(strategy="weighted", models=[{"merge": inner}, {"path": path}])
    with pytest.raises(ConfigError, match=rf"^models\[0\]\.merge: {said}, which only the outermost merge"):
        ModelMerger(config).plan()


def test_a_composition_is_a_model_of_another_merge(distribution: Distribution, tmp_path: Path) -> None:
    swapped = "Composition(TensorSelection('swapped', {'v': (model, 'w'), 'w': (model, 'v')}))"
    install(distribution, [("strategy", "composing", SOURCE.replace("{answer}", swapped))])
    path = str(write_model(tmp_path / "a", {"v": torch.full((2, 3), 5.0), "w": torch.full((2, 3), 1.0)}, None))
    inner = {"strategy": "composing", "models": [{"path": path}]}
    config = MergeConfig(strategy="weighted", models=[{"merge": inner, "weight": 3.0}, {"path": path}])
    merged = ModelMerger(config).merge()
    assert {name: merged[name].unique().tolist() for name in ("v", "w")} == {"v": [2.0], "w": [4.0]}


def test_a_nan_in_a_composition_within_a_merge_is_blamed_on_the_model_that_has_it(
    distribution: Distribution, tmp_path: Path
) -> None:
    renamed = "Composition(TensorSelection('renamed', {'v': (model, 'w')}))"
    install(distribution, [("strategy", "composing", SOURCE.replace("{answer}", renamed))])
    path = str(write_model(tmp_path / "bad", {"w": torch.full((3,), float("nan"))}, None))
    inner = {"strategy": "composing", "models": [{"path": path}]}
    with pytest.raises(NumericError, match=r"/bad.*: w: "):
        ModelMerger(MergeConfig(strategy="weighted", models=[{"merge": inner}])).merge()
