"""Plugins of anyone that view models and adjust configs, as installed distributions, in whole merges."""

import json
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import directory_state
from inputs.tiny_models import load, logits, said_by_transformers, tokenizer, write_tiny
from modelmerger import (
    CheckpointView,
    MergeConfig,
    ModelCompatibilityError,
    ModelMerger,
    PluginError,
    Watch,
    check_model_compatibility,
    merge,
    verify,
)
from modelmerger.testing import merge_in_memory
from plugins.peft_adapters.tiny_adapters import make_adapter
from safetensors.torch import load_file

from tests.core.plugging import install
from tests.faults.stopping import Steps, killed_merge

Distribution = Callable[..., Path]
CUT = """
from attrs import frozen
from modelmerger import LayerView, hookimpl

@frozen(kw_only=True)
class Options:
    keep_layers: tuple[int, ...] = ()

@hookimpl
def view_models(checkpoints, options):
    if options.keep_layers:
        return [LayerView(checkpoint, options.keep_layers) for checkpoint in checkpoints]
"""
STACK = """
from modelmerger import LayerView, hookimpl

@hookimpl{order}
def view_models(checkpoints):
    return tuple(LayerView(checkpoint, [0, 1, 1, 2]) for checkpoint in checkpoints)
"""
HALVED = """
import torch
from attrs import frozen
from modelmerger import CheckpointView, Traits, hookimpl

traits = Traits(models=(1, None))

@frozen(kw_only=True)
class Options:
    factor: float = 0.5

class Scaled(CheckpointView):
    def __init__(self, checkpoint, factor):
        super().__init__(checkpoint)
        self.factor = factor

    @property
    def content(self):
        return f"{super().content} {self.factor}"

    def read(self, tensor, start, stop, buffer):
        super().read(tensor, start, stop, buffer)
        torch.frombuffer(buffer, dtype=torch.float32)[: stop - start].mul_(self.factor)

@hookimpl
def view_models(checkpoints, settings, options):
    assert len(checkpoints) == len(settings.models)
    return [Scaled(checkpoint, options.factor) for checkpoint in checkpoints]

@hookimpl
def find_coefficients(weights):
    return weights
"""
VOICE = """
from modelmerger import hookimpl

@hookimpl
def adjust_config(name, config, plan, checkpoints, settings, options):
    assert options is None and len(checkpoints) == len(plan.models) == len(settings.models)
    {body}
"""


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A base of four layers, and `a` and `b` tuned from it, in float32, each with a tokenizer."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    words, folder = tokenizer(), tmp_path_factory.mktemp("deep")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}
    ends = {"bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id}
    config = Qwen2Config(vocab_size=len(words), num_hidden_layers=4, max_position_embeddings=64, **sizes, **ends)
    model = Qwen2ForCausalLM(config)
    paths = {"base": write_tiny(folder / "base", model, 0)}
    near = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    paths |= {name: write_tiny(folder / name, model, i, near) for i, name in ((1, "a"), (2, "b"))}
    for path in paths.values():
        words.save_pretrained(path)
    return SimpleNamespace(**paths)


def config_of(deep: SimpleNamespace, output: Path, **more: Any) -> dict[str, Any]:
    models = [{"path": str(deep.a), "weight": 0.6}, {"path": str(deep.b), "weight": 0.4}]
    return {"strategy": "weighted", "models": models, "output_path": str(output), **more}


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


def in_source(name: str, layers: Sequence[int]) -> str:
    return re.sub(r"(?<=layers\.)\d+", lambda number: str(layers[int(number[0])]), name)


def assert_weighted(deep: SimpleNamespace, output: Path, layers: Sequence[int]) -> None:
    """Each tensor is that of the sources' layer, weighted in float64, and there is no other."""
    a, b, merged = weights(deep.a), weights(deep.b), weights(output)
    for name, value in merged.items():
        source = in_source(name, layers)
        expected = 0.6 * a[source].double() + 0.4 * b[source].double()
        torch.testing.assert_close(value, expected.float(), rtol=0, atol=0)
    per_layer = sum(".layers.0." in name for name in a)
    assert len(merged) == len(a) - (4 - len(layers)) * per_layer


def test_layers_are_cut_and_transformers_loads_what_is_left(
    deep: SimpleNamespace, distribution: Distribution, tmp_path: Path
) -> None:
    install(distribution, [("plugin", "cut", CUT)])
    layers = [0, 2, 3]
    merger = ModelMerger(MergeConfig(**config_of(deep, tmp_path / "merged", options={"keep_layers": layers})))
    model = merger.merge()

    assert_weighted(deep, tmp_path / "merged", layers)
    config = json.loads((tmp_path / "merged/config.json").read_text())
    assert (config["num_hidden_layers"], len(config["layer_types"])) == (3, 3)
    assert len(model.model.layers) == 3
    loaded, said = load(tmp_path / "merged")
    assert said == load(deep.a)[1]
    with said_by_transformers() as while_generating:
        answer = loaded.generate(torch.arange(3, 9)[None], max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert while_generating == []
    assert answer.shape[1] <= 10
    assert torch.equal(
        answer, model.generate(torch.arange(3, 9)[None], max_new_tokens=4, do_sample=False, pad_token_id=0)
    )
    # the model of four layers without its second one answers alike
    whole = load(deep.a)[0]
    del whole.model.layers[1]
    whole.config.num_hidden_layers = 3
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            parameter.copy_(weights(tmp_path / "merged")[name])
        for number, layer in enumerate(whole.model.layers):
            layer.self_attn.layer_idx = number
    torch.testing.assert_close(logits(loaded), logits(whole), rtol=1e-5, atol=1e-6)
    verify(tmp_path / "merged")


@pytest.mark.parametrize(
    ("order", "layers"), [("", [0, 3, 2]), ("(trylast=True)", [0, 3, 3, 2])], ids=["Z to A", "trylast"]
)
def test_views_of_two_plugins_are_views_of_each_other(
    deep: SimpleNamespace, distribution: Distribution, tmp_path: Path, order: str, layers: list[int]
) -> None:
    """`stack` [0, 1, 1, 2] comes before `cut` by name. Before: layers 0 1 1 2, of which [0, 3, 2]. Behind: 0 3 2, stacked."""
    install(distribution, [("plugin", "stack", STACK.format(order=order))], "one")
    install(distribution, [("plugin", "cut", CUT)], "two")
    merge(MergeConfig(**config_of(deep, tmp_path / "merged", options={"keep_layers": [0, 3, 2]})))
    assert_weighted(deep, tmp_path / "merged", layers if order else [0, 2, 1])


def test_a_strategy_may_view_its_models_with_its_own_options(distribution: Distribution) -> None:
    """And comes last: what it gets is what the plugins leave."""
    sources = [("strategy", "halved", HALVED), ("plugin", "cut", CUT)]
    install(distribution, sources)  # type: ignore[arg-type]  # a list of the same
    model = {f"layers.{i}.w": torch.full((3,), float(i + 1)) for i in range(3)}
    merged = merge_in_memory("halved", [model], options={"factor": 0.25, "keep_layers": [2, 0]})
    assert {name: value.tolist() for name, value in merged.items()} == {
        "layers.0.w": [0.75] * 3,
        "layers.1.w": [0.25] * 3,
    }


def test_a_killed_merge_of_views_goes_on_to_the_same_bytes_and_another_view_is_another_plan(
    deep: SimpleNamespace, distribution: Distribution, tmp_path: Path
) -> None:
    install(distribution, [("plugin", "cut", CUT)])
    options = {"keep_layers": [3, 1], "max_shard_size": 5_000, "low_memory_mode": True}
    config = config_of(deep, tmp_path / "merged", options=options)
    steps = Steps()
    whole = merge(MergeConfig(**{**config, "output_path": str(tmp_path / "whole")}), Watch(step=steps))

    assert killed_merge(config, len(steps.seen) // 3) == -signal.SIGKILL
    report = merge(MergeConfig(**config))

    assert 0 < report.bytes_reused < report.bytes_written
    assert report.plan == whole.plan
    merged, expected = directory_state(tmp_path / "merged"), directory_state(tmp_path / "whole")
    assert merged is not None
    assert expected is not None
    files = [name for name in merged if name.endswith((".safetensors", "config.json", "index.json"))]
    assert len(files) > 3
    assert [name for name in files if merged[name] != expected[name]] == []
    others = [{**options, "keep_layers": [1, 3]}, {**options, "keep_layers": [3, 1, 1]}, {}]
    plans = [ModelMerger(MergeConfig(**{**config, "options": given})).plan().digest for given in others]
    assert len({report.plan, *plans}) == 4


def test_the_base_is_viewed_with_the_models_also_where_adapters_bring_it(
    deep: SimpleNamespace, distribution: Distribution, tmp_path: Path
) -> None:
    install(distribution, [("plugin", "cut", CUT)])
    adapter = make_adapter(tmp_path / "adapter", deep.base, 1)
    told = json.loads((adapter / "adapter_config.json").read_text()) | {"base_model_name_or_path": "somebody/else"}
    (adapter / "adapter_config.json").write_text(json.dumps(told))
    config = {
        "strategy": "task_arithmetic",
        "models": [{"path": str(adapter), "weight": 0.5}],
        "output_path": str(tmp_path / "merged"),
        "peft_config": {"merge_adapters": False, "base_model_path": str(deep.base)},
    }
    merge(MergeConfig(**{**config, "output_path": str(tmp_path / "whole")}))
    merger = ModelMerger(MergeConfig(**config, options={"keep_layers": [2, 0]}))
    views = merger.load_models()

    assert list(views) == ["adapter", "base"]
    assert all(isinstance(view, CheckpointView) for view in views.values())
    report = merge(merger.config)
    whole, merged = weights(tmp_path / "whole"), weights(tmp_path / "merged")
    assert all(torch.equal(value, whole[in_source(name, [2, 0])]) for name, value in merged.items())
    notes = " ".join(map(str, report.notes))
    assert "was trained on" in notes
    assert "peft_config has no effect" not in notes


def test_updates_of_adapters_that_are_viewed_otherwise_are_not_merged(
    deep: SimpleNamespace, distribution: Distribution, tmp_path: Path
) -> None:
    install(distribution, [("plugin", "cut", CUT)])
    models = [{"path": str(make_adapter(tmp_path / name, deep.base, i))} for i, name in enumerate(("one", "two"))]
    more = {"peft_config": {"merge_adapters": True}, "output_path": str(tmp_path / "merged")}
    config = MergeConfig("weighted", models, options={"keep_layers": [0]}, **more)
    with pytest.raises(ModelCompatibilityError, match="an adapter that a plugin views otherwise") as refusal:
        merge(config)
    assert len(refusal.value.problems) == 2
    merge(MergeConfig("weighted", models, **more))


def test_models_in_memory_are_viewed_too(deep: SimpleNamespace, distribution: Distribution, tmp_path: Path) -> None:
    install(distribution, [("plugin", "cut", CUT)])
    config = config_of(deep, tmp_path / "merged", options={"keep_layers": [1, 0]})
    config["models"] = [{**given, "path": load(Path(given["path"]))[0]} for given in config["models"]]
    merge(MergeConfig(**config))
    assert_weighted(deep, tmp_path / "merged", [1, 0])
    assert json.loads((tmp_path / "merged/config.json").read_text())["num_hidden_layers"] == 2


def test_views_are_what_is_checked(deep: SimpleNamespace, distribution: Distribution, tmp_path: Path) -> None:
    """The first model keeps its four layers, and so neither its config nor its tensors go with the second's."""
    source = CUT.replace("in checkpoints]", "in checkpoints[1:]]").replace("return [", "return checkpoints[:1] + [")
    install(distribution, [("plugin", "cut", source)])
    config = MergeConfig(**config_of(deep, tmp_path / "merged", options={"keep_layers": [0, 1, 2]}))
    with pytest.raises(ModelCompatibilityError, match="num_hidden_layers is 3 here and 4 in 'a'"):
        ModelMerger(config).check_compatibility()


def test_the_check_of_models_alone_views_them(deep: SimpleNamespace, distribution: Distribution) -> None:
    install(
        distribution, [("plugin", "odd", "from modelmerger import hookimpl\n@hookimpl\ndef view_models(): return []")]
    )
    with pytest.raises(PluginError, match=r"plugin 'odd' from acme-merge 1\.0: view_models gave"):
        check_model_compatibility([{"path": deep.a}, {"path": deep.b}])


def test_a_validator_changes_no_merge(deep: SimpleNamespace, distribution: Distribution, tmp_path: Path) -> None:
    """It is part of no plan, so its answers may not decide a byte."""
    source = """
from modelmerger import hookimpl
metrics = {"x": "lower"}
@hookimpl
def view_models(): return []
@hookimpl
def adjust_config(): return []
@hookimpl
def validate_model(): return []
"""
    install(distribution, [("validator", "eager", source)])
    merge(MergeConfig(**config_of(deep, tmp_path / "merged", validation={"metrics": ["eager"]})))
    assert_weighted(deep, tmp_path / "merged", range(4))


def voices(distribution: Distribution, **bodies: str) -> None:
    """Plugins with adjust_config, by name."""
    install(distribution, [("plugin", name, VOICE.format(body=body)) for name, body in bodies.items()])


def written(deep: SimpleNamespace, output: Path, **more: Any) -> tuple[Mapping[str, Any], bytes]:
    merge(MergeConfig(**config_of(deep, output, **more)))
    return json.loads((output / "config.json").read_text()), (output / "generation_config.json").read_bytes()


def test_every_voice_has_its_say_in_the_configs(
    deep: SimpleNamespace, distribution: Distribution, tmp_path: Path
) -> None:
    """Z first. What `m` does to what it is handed, and does not return, does not count."""
    voices(
        distribution,
        z="return {**config, 'said': [name, 'z'], 'torch_dtype': 'float8', 'trained_on': (1, 2)}",
        m="config['said'] = 'nothing'",
        a="return {**config, 'said': [*config['said'], 'a']} if name == 'config.json' else None",
    )
    before = json.loads((deep.a / "config.json").read_text())
    config, generation = written(deep, tmp_path / "merged", options={"torch_dtype": "float16"})
    told = {"said": ["config.json", "z", "a"], "torch_dtype": "float16", "trained_on": [1, 2], "dtype": "float16"}
    assert config == {**before, **told}
    said = {"said": ["generation_config.json", "z"], "torch_dtype": "float8", "trained_on": [1, 2]}
    assert json.loads(generation) == {**json.loads((deep.a / "generation_config.json").read_bytes()), **said}


@pytest.mark.parametrize("body", ["return None", "return dict(config)"])
def test_a_generation_config_that_nobody_changes_keeps_its_bytes(
    deep: SimpleNamespace, distribution: Distribution, tmp_path: Path, body: str
) -> None:
    voices(distribution, quiet=body)
    assert written(deep, tmp_path / "merged")[1] == (deep.a / "generation_config.json").read_bytes()


WRONG = {
    "return [config]": r"adjust_config gave \[\{.* instead of a dict of plain JSON or None\.",
    "return {**config, 'x': {1, 2}}": r"adjust_config gave \{.* instead of a dict of plain JSON or None\.",
    "config['x'] = config; return config": r"adjust_config gave \{.* instead of a dict of plain JSON or None\.",
    "return {**config, 'auto_map': {'AutoModel': 'x.Y'}}": r"adjust_config gave config\.json auto_map, which can make a",
    "return {**config, 'inner': [{'_attn_implementation': 'o/k'}]}": r"adjust_config gave config\.json _attn_implementation, which",
    "return config['absent']": "raised KeyError in adjust_config: 'absent'",
}


@pytest.mark.parametrize("body", WRONG)
def test_a_wrong_config_is_blamed_on_its_plugin_before_the_first_write(
    deep: SimpleNamespace, distribution: Distribution, tmp_path: Path, body: str
) -> None:
    voices(distribution, careless=body, another="return {**config, 'x': 1}")
    config = config_of(deep, tmp_path / "merged")
    before = sorted(tmp_path.iterdir())
    for run in (merge, lambda given: ModelMerger(given).plan(), lambda given: ModelMerger(given).check_compatibility()):
        with pytest.raises(PluginError, match=f"^plugin 'careless' from acme-merge 1.0:? {WRONG[body]}") as refusal:
            run(MergeConfig(**config))
        assert len(refusal.value.lines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_the_returned_model_is_of_the_class_that_the_adjusted_config_names(
    deep: SimpleNamespace, distribution: Distribution, tmp_path: Path
) -> None:
    voices(
        distribution,
        renamed="return {**config, 'architectures': ['NoSuchModel']} if 'architectures' in config else None",
    )
    with pytest.raises(Exception, match="NoSuchModel"):
        ModelMerger(MergeConfig(**config_of(deep, tmp_path / "merged"))).merge()
    assert not (tmp_path / "merged").exists()


def test_a_merged_adapter_has_no_config_that_could_be_adjusted(
    deep: SimpleNamespace, distribution: Distribution, tmp_path: Path
) -> None:
    voices(distribution, loud="raise AssertionError")
    adapter = make_adapter(tmp_path / "adapter", deep.base, 1)
    config = {"output_path": str(tmp_path / "merged"), "peft_config": {"merge_adapters": True}}
    merge(MergeConfig("weighted", [{"path": str(adapter)}], **config))
    assert not (tmp_path / "merged/config.json").exists()
