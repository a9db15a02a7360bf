"""Merges whose weights are never written: the returned model is the one that the files of such a merge would give."""

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import directory_state
from inputs.tiny_models import load, logits, make_tiny, tied, untied
from inputs.watching import watched
from modelmerger import ConfigError, MergeConfig, ModelMerger, NumericError, PluginError, run_in_memory, verify
from modelmerger.validation import built_model

from tests.core.plugging import install

__all__ = ["tied", "untied"]
WEIGHTS = ("*.safetensors", "*.bin")
VALIDATION = {"test_prompts": ["مرحبا"], "metrics": ["perplexity", "dialect_prompts"], "max_new_tokens": 4}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def config_of(models: SimpleNamespace, **more: Any) -> dict[str, Any]:
    entries = [{"path": str(models.a), "weight": 0.75}, {"path": str(models.b), "weight": 0.25}]
    return {"strategy": "weighted", "models": entries, **more}


def files_of(folder: Path) -> list[Path]:
    return [path for pattern in WEIGHTS for path in folder.rglob(pattern)]


def assert_same(found: Any, expected: Any) -> None:
    """Class, weights, buffers, ties, configs, mode: nothing but the path may tell two models apart."""
    assert type(found) is type(expected)
    for which in ("state_dict", "named_buffers"):
        states = [dict(getattr(model, which)()) for model in (found, expected)]
        assert list(states[0]) == list(states[1])
        for name, tensor in states[1].items():
            other = states[0][name]
            assert (other.dtype, other.device, other.stride()) == (tensor.dtype, tensor.device, tensor.stride()), name
            assert torch.equal(other.view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8)), name
    assert [p.requires_grad for p in found.parameters()] == [p.requires_grad for p in expected.parameters()]
    assert list(dict(found.named_parameters())) == list(dict(expected.named_parameters()))  # tied ones once
    configs = [{**model.config.to_dict(), "_name_or_path": ""} for model in (found, expected)]
    assert configs[0] == configs[1]
    if expected.can_generate():
        assert found.generation_config.to_dict() == expected.generation_config.to_dict()
    modes = [[module.training for module in model.modules()] for model in (found, expected)]
    assert modes[0] == modes[1]
    assert getattr(found, "hf_device_map", None) == getattr(expected, "hf_device_map", None)


def both(config: dict[str, Any], tmp_path: Path) -> tuple[ModelMerger, Any, Any]:
    """The merger that merged to memory, its model, and that of a merge to a directory."""
    merger = ModelMerger(MergeConfig(**config))
    model = merger.merge()
    assert merger.merge_report is not None
    assert merger.merge_report.in_memory
    published = ModelMerger(MergeConfig(**config, output_path=str(tmp_path / "published")))
    expected = published.merge()
    assert published.merge_report is not None
    assert not published.merge_report.in_memory
    return merger, model, expected


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_shard_size": 3000},
        {"torch_dtype": "bfloat16"},
        {"use_safetensors": False},
        {"device_map": "cpu"},
        {"device_map": {"": "cpu"}},
        {"gradient_checkpointing": True},
        {"preserve_tokenizer": False, "merge_embeddings": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["tied", "untied"])
def test_the_model_is_that_of_the_directory(
    kind: str, options: dict[str, Any], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    merger, model, expected = both(config_of(request.getfixturevalue(kind), options=options), tmp_path)

    assert_same(model, expected)
    assert torch.equal(logits(model), logits(expected))
    assert model.name_or_path == model.model.name_or_path == model.config.name_or_path == merger.merge_report.output  # type: ignore[union-attr]
    assert model.model.gradient_checkpointing is options.get("gradient_checkpointing", False)
    assert model.dtype is getattr(torch, options.get("torch_dtype", "float32"))


def test_models_in_shards_and_strategies_with_a_base(tied: SimpleNamespace, tmp_path: Path) -> None:
    for name in ("a", "b"):
        load(getattr(tied, name))[0].save_pretrained(tmp_path / name, max_shard_size=3000)
        assert len(list((tmp_path / name).glob("*.safetensors"))) > 1
    config = config_of(SimpleNamespace(a=tmp_path / "a", b=tmp_path / "b"))
    config |= {"strategy": "task_arithmetic", "base_model": str(tied.base)}
    _, model, expected = both(config, tmp_path)
    assert_same(model, expected)


def test_models_in_memory_stay_there(tied: SimpleNamespace, tmp_path: Path) -> None:
    _, _, expected = both(config_of(tied), tmp_path)
    config = config_of(tied)
    for entry in config["models"]:
        entry["path"] = load(Path(entry["path"]))[0]
    (tmp_path / "live").mkdir()
    _, found, live = both(config, tmp_path / "live")
    assert_same(found, live)
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in expected.state_dict().items())


@pytest.mark.parametrize("kept", [True, False])
def test_the_generation_config_is_found_as_transformers_finds_it(
    kept: bool, tied: SimpleNamespace, tmp_path: Path
) -> None:
    shutil.copytree(tied.a, tmp_path / "a")
    file = tmp_path / "a/generation_config.json"
    if kept:
        file.write_text(json.dumps({"max_new_tokens": 7, "do_sample": True, "top_p": 0.5}))
    else:
        file.unlink()
    _, model, expected = both(config_of(SimpleNamespace(a=tmp_path / "a", b=tied.b)), tmp_path)
    assert model.generation_config.to_dict() == expected.generation_config.to_dict()
    assert model.generation_config.max_new_tokens == (7 if kept else None)


def test_no_file_of_weights_is_opened_to_write_or_read(tied: SimpleNamespace, temporary: Path) -> None:
    merger = ModelMerger(MergeConfig(**config_of(tied)))

    with watched() as seen:
        model = merger.merge()

    assert files_of(temporary) == []
    assert not [path for path in seen.opened_in(temporary) if path.endswith((".safetensors", ".bin"))]
    assert (seen.network, seen.processes) == ([], [])
    assert str(merger.merge_report).startswith("merged 2 models (weighted) into memory: 26 tensors, ")
    assert merger.merge_report is not None
    names = {path.name for path in Path(merger.merge_report.output).iterdir()}
    assert {"config.json", "tokenizer.json", "modelmerger.json", "README.md"} <= names
    assert merger.tokenizer.get_vocab().keys() >= tied.words.get_vocab().keys()
    del model
    gc.collect()
    assert list(temporary.iterdir()) == []
    with pytest.raises(ConfigError, match="gone with the model"):
        _ = merger.tokenizer


def test_the_report_is_that_of_the_directory(tied: SimpleNamespace, tmp_path: Path) -> None:
    config = config_of(tied, strategy="task_arithmetic", base_model=str(tied.base))
    config["options"] = {"clamp_weights": True, "clamp_range": [-0.1, 0.1], "geometry": True}
    merger = ModelMerger(MergeConfig(**config))
    _ = merger.merge()
    published = ModelMerger(MergeConfig(**config, output_path=str(tmp_path / "published")))
    published.merge()

    reports = [each.merge_report.as_dict() for each in (merger, published)]  # type: ignore[union-attr]
    assert [report.pop("in_memory") for report in reports] == [True, False]
    for report in reports:
        del report["output"], report["seconds"]
    assert reports[0] == reports[1]
    assert reports[0]["counts"]["clamped values"] > 0
    assert reports[0]["observed"]


def test_a_model_in_memory_is_saved_whole(tied: SimpleNamespace, tmp_path: Path) -> None:
    merger, model, expected = both(config_of(tied), tmp_path)

    merger.save_merged_model(model, tmp_path / "saved")

    verify(tmp_path / "saved")
    assert_same(load(tmp_path / "saved")[0], expected)
    names = {path.name for path in (tmp_path / "published").iterdir()}
    assert {path.name for path in (tmp_path / "saved").iterdir()} == names


def test_parameters_are_independent_and_may_be_trained(tied: SimpleNamespace) -> None:
    model = ModelMerger(MergeConfig(**config_of(tied))).merge()
    sizes = {name: p.untyped_storage().nbytes() - p.nbytes for name, p in model.named_parameters()}
    assert set(sizes.values()) == {0}
    before = logits(model)
    model.train()
    model(torch.arange(3, 11).view(1, 8), labels=torch.arange(3, 11).view(1, 8)).loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not torch.equal(logits(model.eval()), before)


@pytest.mark.usefixtures("tokenizers_here")
def test_a_validation_finds_what_it_finds_of_the_directory(
    arabic_texts: dict[str, Any], tied: SimpleNamespace, tmp_path: Path
) -> None:
    """Before gradient checkpointing is on, without which nothing is cached."""
    config = config_of(tied, validation=arabic_texts, options={"gradient_checkpointing": True})
    merger, model, expected = both(config, tmp_path)

    found = merger.validation_report
    assert found is not None
    assert merger.merge_report is not None
    assert merger.merge_report.validation is found
    published = json.loads((tmp_path / "published/validation.json").read_bytes())
    in_memory = json.loads((Path(merger.merge_report.output) / "validation.json").read_bytes())
    for report in (published, in_memory):
        for finding in (*report["findings"], *report["samples"]):
            finding["model"] = ""
        report["directory"] = ""
    assert in_memory == published
    assert_same(model, expected)
    again = merger.validate_merge(model)
    assert [(f.metric, f.label, f.value) for f in again.findings] == [
        (f.metric, f.label, f.value) for f in found.findings
    ]


@pytest.fixture
def arabic_texts(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "texts.txt").write_text("مرحبا، كيف حالك اليوم؟\nشلونك؟ شخبارك؟\n")
    return VALIDATION | {"dataset": str(tmp_path / "texts.txt"), "compare_with_sources": True}


def test_a_validation_that_fails_names_no_directory_and_leaves_none(
    tied: SimpleNamespace, temporary: Path, distribution: Callable[..., Path]
) -> None:
    source = "from modelmerger import hookimpl\nmetrics = {'m': 'lower'}\n@hookimpl\ndef validate_model(): raise RuntimeError('oh')\n"
    install(distribution, [("validator", "bad", source)])
    with pytest.raises(PluginError, match="oh") as failure:
        ModelMerger(MergeConfig(**config_of(tied, validation={"metrics": ["bad"]}))).merge()
    assert "merged model is at" not in str(failure.value)
    assert list(temporary.iterdir()) == []


def test_a_merge_that_fails_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    models = make_tiny(tmp_path / "models", tied=True)
    model, _ = load(models.b)
    with torch.no_grad():
        model.model.norm.weight[3] = float("nan")
    model.save_pretrained(models.b)
    before = directory_state(models.a)
    with pytest.raises(NumericError, match=r"model\.norm\.weight"):
        ModelMerger(MergeConfig(**config_of(models))).merge()
    assert list(temporary.iterdir()) == []
    assert directory_state(models.a) == before


# where it is not so

RETURNS = """
from modelmerger import hookimpl

class Found:
    def __init__(self, directory):
        self.names = [path.name for path in directory.glob("*.safetensors")]

@hookimpl
def return_model(directory):
    return Found(directory)
"""


def weights_of(config: dict[str, Any], temporary: Path) -> tuple[ModelMerger, list[str]]:
    """The merger, and the files of weights that there are while the merged model lives."""
    merger = ModelMerger(MergeConfig(**config))
    model = merger.merge()
    names = sorted(path.name for path in files_of(temporary))
    assert merger.merge_report is not None
    assert merger.merge_report.in_memory is not bool(names)
    del model
    return merger, names


def test_more_than_half_of_the_memory_goes_to_the_disk(
    tied: SimpleNamespace, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = ModelMerger(MergeConfig(**config_of(tied))).plan().bytes_written
    monkeypatch.setattr(run_in_memory, "available_memory", lambda: 2 * written)
    assert weights_of(config_of(tied), temporary)[1] == ["model.safetensors"]
    gc.collect()
    monkeypatch.setattr(run_in_memory, "available_memory", lambda: 2 * written + 1)
    assert weights_of(config_of(tied), temporary)[1] == []


@pytest.mark.parametrize(
    "options",
    [
        {"low_memory_mode": True},
        {"device_map": {"model": "cpu", "lm_head": "disk"}},
        {"offload_folder": "offload"},
        {"executor": "threads"},
    ],
    ids=str,
)
def test_options_that_need_files_are_obeyed(options: dict[str, Any], tied: SimpleNamespace, temporary: Path) -> None:
    options = {key: str(temporary / value) if key == "offload_folder" else value for key, value in options.items()}
    assert weights_of(config_of(tied, options=options), temporary)[1] == ["model.safetensors"]


def test_a_plugin_that_loads_models_finds_their_files(
    tied: SimpleNamespace, temporary: Path, distribution: Callable[..., Path]
) -> None:
    assert weights_of(config_of(tied), temporary)[1] == []
    install(distribution, [("plugin", "returns", RETURNS)])
    assert ModelMerger(MergeConfig(**config_of(tied))).merge().names == ["model.safetensors"]


EXECUTES = """
from modelmerger import hookimpl

@hookimpl
def run_slices(work):
    work.order()
"""


def test_a_plugin_that_executes_elsewhere_finds_a_directory(
    tied: SimpleNamespace, temporary: Path, distribution: Callable[..., Path]
) -> None:
    install(distribution, [("plugin", "executes", EXECUTES)])
    assert weights_of(config_of(tied), temporary)[1] == ["model.safetensors"]


@pytest.mark.parametrize("claims", [{"quantization_config": {"quant_method": "acme"}}, {"transformers_weights": "x"}])
def test_what_transformers_reads_in_another_way_is_not_built(claims: dict[str, Any], tied: SimpleNamespace) -> None:
    from modelmerger.values.options.core import CoreOptions

    from tests.core.validation.assembled import always_on

    config = json.loads((tied.a / "config.json").read_bytes())
    hooks, options = always_on().validation, CoreOptions()
    assert built_model.can_build(config, options, hooks)
    assert not built_model.can_build(config | claims, options, hooks)
    del config["architectures"]  # an auto class
    assert not built_model.can_build(config, options, hooks)


# what it costs

PEAK = """
import json, sys
from pathlib import Path
from modelmerger import MergeConfig, ModelMerger

def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])

small, large = (ModelMerger(MergeConfig(**config)) for config in json.loads(sys.argv[1]))
model = small.merge()
before = peak()
model = large.merge()
print(peak() - before, sum(parameter.nbytes for parameter in model.parameters()), large.merge_report.in_memory)
"""


def test_memory_grows_by_the_merged_weights_and_no_more(tied: SimpleNamespace, tmp_path: Path) -> None:
    """90 MB of weights, in a process that has merged before: a second copy of them would show."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = {"vocab_size": 24_000, "hidden_size": 448, "intermediate_size": 448, "num_hidden_layers": 2}
    model = Qwen2ForCausalLM(Qwen2Config(**shape, num_attention_heads=4, num_key_value_heads=4))
    for name in "ab":
        model.save_pretrained(tmp_path / name)
    large = SimpleNamespace(a=tmp_path / "a", b=tmp_path / "b")
    configs = json.dumps([config_of(tied), config_of(large)])
    done = subprocess.run(
        [sys.executable, "-c", PEAK, configs], env=os.environ, stdout=subprocess.PIPE, text=True, timeout=120, check=True
    )  # fmt: skip
    grown, weights, in_memory = done.stdout.split()
    assert in_memory == "True"
    assert int(weights) > 80 << 20
    assert int(grown) < int(weights) + (50 << 20)
