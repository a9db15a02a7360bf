"""The Python API: the merged model as an object, its tokenizer, saving it elsewhere, and looking before merging."""

import gc
import json
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modelmerger
import pytest
import torch
from conftest import directory_state, random_tensors, write_model
from inputs.tiny_models import load, logits, tied
from inputs.watching import watched
from modelmerger import (
    ConfigError,
    InputError,
    MergeConfig,
    ModelCompatibilityError,
    ModelMerger,
    OutputError,
    check_model_compatibility,
    verify,
)
from modelmerger.output.manifest import read_manifest
from safetensors.torch import load_file

__all__ = ["tied"]


@pytest.fixture
def tiny(tied: SimpleNamespace, tmp_path: Path) -> dict[str, Any]:
    """The config of a merge of two real models."""
    models = [{"path": str(tied.a), "weight": 0.75}, {"path": str(tied.b), "weight": 0.25}]
    return {"strategy": "weighted", "models": models, "output_path": str(tmp_path / "merged")}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_merge_returns_the_published_model_in_evaluation_mode(
    tiny: dict[str, Any], tied: SimpleNamespace, tmp_path: Path
) -> None:
    merger = ModelMerger(MergeConfig(**tiny))

    model = merger.merge()

    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert not model.training
    assert torch.equal(logits(model), logits(load(tmp_path / "merged")[0]))
    assert merger.merge_report is not None
    assert merger.merge_report.output == str(tmp_path / "merged")
    assert merger.tokenizer.get_vocab().keys() >= tied.words.get_vocab().keys()
    verify(tmp_path / "merged")


def test_without_an_output_path_the_directory_goes_with_the_model(tiny: dict[str, Any], temporary: Path) -> None:
    del tiny["output_path"]
    merger = ModelMerger(MergeConfig(**tiny))

    model = merger.merge()

    (folder,) = temporary.iterdir()
    assert merger.tokenizer is not None
    assert logits(model).isfinite().all()
    del model
    gc.collect()
    assert not folder.exists()
    with pytest.raises(ConfigError, match="gone with the model"):
        _ = merger.tokenizer


def test_a_merge_that_fails_leaves_no_temporary_directory(models: SimpleNamespace, temporary: Path) -> None:
    write_model(models.b, {**models.tensors["b"], "model.norm.weight": torch.full((16,), float("nan"))})
    config = MergeConfig(strategy="weighted", models=[{"path": str(models.a)}, {"path": str(models.b)}])

    with pytest.raises(modelmerger.NumericError, match=r"model\.norm\.weight"):
        ModelMerger(config).merge()

    assert list(temporary.iterdir()) == []


def test_without_config_json_the_merged_model_is_the_lazily_read_checkpoint(
    models: SimpleNamespace, temporary: Path
) -> None:
    paths = [models.a / "model.safetensors", models.b / "model.safetensors"]
    merger = ModelMerger(MergeConfig(strategy="weighted", models=[{"path": str(path)} for path in paths]))
    before = set(os.listdir("/proc/self/fd"))

    checkpoint = merger.merge()

    assert isinstance(checkpoint, modelmerger.Checkpoint)
    assert checkpoint.tensors.keys() == models.tensors["a"].keys()
    content = bytearray(32)
    checkpoint.read("model.norm.weight", 0, 16, memoryview(content))
    exact = sum(models.tensors[name]["model.norm.weight"].double() for name in ("a", "b")) / 2
    merged = torch.frombuffer(content, dtype=torch.bfloat16).double()
    torch.testing.assert_close(merged, exact, rtol=2**-8, atol=0)
    merger.save_merged_model(checkpoint, models.folder / "saved")
    assert load_file(models.folder / "saved" / "model.safetensors").keys() == models.tensors["a"].keys()
    verify(models.folder / "saved")
    del checkpoint
    gc.collect()
    assert list(temporary.iterdir()) == []
    assert set(os.listdir("/proc/self/fd")) <= before


def test_the_tokenizer_of_a_model_without_one_is_none(tiny: dict[str, Any]) -> None:
    tiny["options"] = {"preserve_tokenizer": False}
    merger = ModelMerger(MergeConfig(**tiny))
    with pytest.raises(ConfigError, match="nothing is merged yet"):
        _ = merger.tokenizer

    merger.merge()

    assert merger.tokenizer is None


def test_merging_and_loading_open_no_socket(tiny: dict[str, Any]) -> None:
    """D6: transformers included."""
    merger = ModelMerger(MergeConfig(**tiny))

    with watched() as seen:
        merger.merge()
        _ = merger.tokenizer

    assert seen.network == []
    # a tokenizer is tried out in a process of its own
    assert all("modelmerger.hooks.inquiries" in process for process in seen.processes)


def test_saving_writes_a_directory_that_loads_and_verifies(tiny: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "merged-before").mkdir()
    merger = ModelMerger(MergeConfig(**tiny))
    model = merger.merge()
    with torch.no_grad():
        model.model.norm.weight.mul_(2)

    merger.save_merged_model(model, tmp_path / "saved")

    saved, said = load(tmp_path / "saved")
    assert said == load(tmp_path / "merged")[1]
    assert torch.equal(logits(saved), logits(model))
    assert not torch.equal(logits(saved), logits(load(tmp_path / "merged")[0]))
    verify(tmp_path / "saved")
    verify(tmp_path / "merged")
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {path.name for path in (tmp_path / "saved").iterdir()} == names
    umask = os.umask(0)
    os.umask(umask)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert modes == {0o666 & ~umask}
    assert stat.S_IMODE((tmp_path / "saved").stat().st_mode) == 0o777 & ~umask
    assert sorted(os.listdir(tmp_path)) == ["merged", "merged-before", "saved"]


def test_a_damaged_tensor_of_a_saved_model_is_named(tiny: dict[str, Any], tmp_path: Path) -> None:
    merger = ModelMerger(MergeConfig(**tiny))
    merger.save_merged_model(merger.merge(), tmp_path / "saved")
    weights = tmp_path / "saved" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:begin])
    name = "model.layers.1.mlp.up_proj.weight"
    content[begin + entries[name]["data_offsets"][0]] ^= 1
    weights.write_bytes(content)

    with pytest.raises(InputError) as caught:
        verify(tmp_path / "saved")

    assert [(Path(p.where).name, p.tensor) for p in caught.value.problems] == [("model.safetensors", name)]


def test_saving_in_shards_has_an_index(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["options"] = {"max_shard_size": 3000}
    merger = ModelMerger(MergeConfig(**tiny))
    model = merger.merge()

    merger.save_merged_model(model, str(tmp_path / "saved"))

    assert (tmp_path / "saved" / "model.safetensors.index.json").exists()
    assert torch.equal(logits(load(tmp_path / "saved")[0]), logits(model))
    verify(tmp_path / "saved")


def test_saving_a_pickled_merge_leaves_its_weights_behind(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["options"] = {"use_safetensors": False}
    merger = ModelMerger(MergeConfig(**tiny))
    model = merger.merge()
    with torch.no_grad():
        model.model.norm.weight.mul_(2)

    merger.save_merged_model(model, tmp_path / "saved")

    assert not list((tmp_path / "saved").glob("pytorch_model*"))
    assert torch.equal(logits(load(tmp_path / "saved")[0]), logits(model))
    verify(tmp_path / "saved")


def test_saving_refuses_what_publishing_refuses(tiny: dict[str, Any], tied: SimpleNamespace, tmp_path: Path) -> None:
    """A11, A13, A14, A16."""
    merger = ModelMerger(MergeConfig(**tiny))
    model = merger.merge()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious").touch()
    (tmp_path / "file").touch()
    before = directory_state(tied.a)
    cases = {
        tmp_path / "taken": "exists already",
        tmp_path / "file": "exists and is a file",
        tmp_path / "merged": "exists already",
        tmp_path / "absent" / "such" / "saved": "does not exist. Make it first.",
        tied.a / "saved": "is, contains or lies in the input",
        tied.a / "x" / ".." / "saved": "is, contains or lies in the input",
    }

    for target, words in cases.items():
        with pytest.raises(OutputError, match=re.escape(words)):
            merger.save_merged_model(model, target)

    assert os.listdir(tmp_path / "taken") == ["precious"]
    assert directory_state(tied.a) == before
    assert sorted(os.listdir(tmp_path)) == ["file", "merged", "taken"]


def test_saving_makes_the_folder_around(tiny: dict[str, Any], tmp_path: Path) -> None:
    """A16."""
    merger = ModelMerger(MergeConfig(**tiny))
    merger.save_merged_model(merger.merge(), tmp_path / "new" / "saved")
    assert os.listdir(tmp_path / "new") == ["saved"]
    verify(tmp_path / "new" / "saved")


def test_saving_overwrites_our_own_output_when_told_to(tiny: dict[str, Any], tmp_path: Path) -> None:
    """A12, A13."""
    tiny["options"] = {"overwrite": True}
    merger = ModelMerger(MergeConfig(**tiny))
    model = merger.merge()
    shutil.copytree(tmp_path / "merged", tmp_path / "ours")
    (tmp_path / "ours" / "stray").touch()
    (tmp_path / "others").mkdir()
    with pytest.raises(OutputError, match="stray: was put there by no merge"):
        merger.save_merged_model(model, tmp_path / "ours")

    merger.config.options["keep_extra"] = True
    merger.save_merged_model(model, tmp_path / "ours")

    assert (tmp_path / "ours" / "stray").exists()
    (tmp_path / "ours" / "stray").unlink()
    merger.config.options["keep_extra"] = False
    merger.save_merged_model(model, tmp_path / "ours")

    assert "extra" not in read_manifest(tmp_path / "ours")
    verify(tmp_path / "ours")
    with pytest.raises(OutputError, match="no merge wrote it"):
        merger.save_merged_model(model, tmp_path / "others")


def test_saving_before_merging_says_so(tiny: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is merged yet, so there is nothing to save"):
        ModelMerger(MergeConfig(**tiny)).save_merged_model(None, tmp_path / "saved")


def test_names_in_other_scripts_are_saved_whatever_the_locale(
    models: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = models.folder / "نموذج"
    models.a.rename(folder)
    (folder / "config.json").unlink()
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setattr("locale.getpreferredencoding", lambda *_: "ascii")
    merger = ModelMerger(MergeConfig(strategy="weighted", models=[{"path": str(folder)}, {"path": str(models.b)}]))

    merger.save_merged_model(merger.merge(), models.output)

    assert json.loads((models.output / "modelmerger.json").read_bytes())["donor"] == "نموذج"


@pytest.mark.parametrize(
    "architectures", [["NoSuchModel"], ["set_seed"], ["AutoTokenizer"], [7], {"a": 1}, "torch"], ids=str
)
def test_an_architecture_that_is_no_model_class_is_refused(
    models: SimpleNamespace, temporary: Path, architectures: object
) -> None:
    """B10: nothing but a model class of transformers is ever called."""
    (models.a / "config.json").write_text(json.dumps({"architectures": architectures, "model_type": "llama"}))
    merger = ModelMerger(MergeConfig(strategy="weighted", models=[{"path": str(models.a)}, {"path": str(models.b)}]))

    with pytest.raises(InputError, match=r"names the architecture .* this transformers has no such model class"):
        merger.merge()

    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"architectures": ["NoSuchModel"]}, "names the architecture 'NoSuchModel', and this transformers has no such"),
        ({"model_type": "no_such_type"}, "knows no model of the model_type 'no_such_type'"),
        ({"architectures": []}, "knows no model of the model_type None"),
    ],
)
def test_a_model_that_could_not_be_returned_is_told_before_merging_and_merges_to_disk(
    models: SimpleNamespace, config: dict[str, Any], claims: dict[str, Any], words: str
) -> None:
    for path in (models.a, models.b):
        (path / "config.json").write_text(json.dumps(claims))
    before = sorted(os.listdir(models.folder))

    with pytest.raises(InputError, match=re.escape(words)) as refusal:
        ModelMerger(MergeConfig(**config)).merge()

    assert str(refusal.value).startswith(f"{models.a}/config.json: ")
    assert str(refusal.value).endswith("Merge it by merge(config), which loads no model.")
    assert sorted(os.listdir(models.folder)) == before
    modelmerger.merge(MergeConfig(**config))
    verify(models.output)


def test_the_base_models_architecture_is_the_one_that_counts(models: SimpleNamespace, config: dict[str, Any]) -> None:
    (models.a / "config.json").write_text(json.dumps({"architectures": ["NoSuchModel"]}))
    (models.base / "config.json").write_text(json.dumps({"architectures": ["AlsoNoModel"]}))
    config |= {"strategy": "task_arithmetic", "base_model": str(models.base)}

    with pytest.raises(InputError, match=r"base/config\.json: names the architecture 'AlsoNoModel'"):
        ModelMerger(MergeConfig(**config)).merge()


def test_without_architectures_the_model_type_will_do(
    tiny: dict[str, Any], tied: SimpleNamespace, tmp_path: Path
) -> None:
    shutil.copytree(tied.a, tmp_path / "a")
    claims = json.loads((tied.a / "config.json").read_text())
    del claims["architectures"]
    (tmp_path / "a" / "config.json").write_text(json.dumps(claims))
    tiny["models"][0]["path"] = str(tmp_path / "a")

    assert type(ModelMerger(MergeConfig(**tiny)).merge()).__name__ == "Qwen2Model"


def test_checkpoints_are_read_lazily_by_name(models: SimpleNamespace, config: dict[str, Any]) -> None:
    config |= {"strategy": "task_arithmetic", "base_model": str(models.base)}
    config["models"][0]["name"] = "first"
    merger = ModelMerger(MergeConfig(**config))

    with watched() as seen:
        checkpoints = merger.load_models()

    assert list(checkpoints) == ["first", "b", "base"]
    assert seen.opened_in(models.a / "model.safetensors")
    content = bytearray(32)
    checkpoints["b"].read("model.norm.weight", 0, 16, memoryview(content))
    assert torch.equal(torch.frombuffer(content, dtype=torch.bfloat16), models.tensors["b"]["model.norm.weight"])


def test_the_plan_is_printed_and_is_plain_data(models: SimpleNamespace, config: dict[str, Any]) -> None:
    plan = ModelMerger(MergeConfig(**config)).plan()

    text = str(plan)
    assert text.splitlines()[0] == "weighted of 2 models"
    assert f"  a: weight 0.6, gives config and tokenizer ({models.a})" in text
    assert "7 merged tensors" in text
    data = json.loads(json.dumps(plan.as_dict()))
    size = sum(tensor.nbytes for tensor in models.tensors["a"].values())
    assert (data["bytes_read"], data["donor"]) == (2 * size, "a")
    assert {tensor["name"] for tensor in data["tensors"]} == models.tensors["a"].keys()
    assert not models.output.exists()


def test_checking_returns_what_is_to_be_said_and_writes_nothing(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    (models.b / "config.json").write_text(json.dumps({"tie_word_embeddings": False}))
    config["peft_config"] = {"merge_adapters": True}

    found = ModelMerger(MergeConfig(**config)).check_compatibility()

    assert sorted(problem.severity for problem in found) == ["note", "note", "warning"]
    assert any("peft_config has no effect" in problem.message for problem in found)
    assert any("tie_word_embeddings is False here and True in 'a'" in problem.message for problem in found)
    assert not models.output.exists()


def test_checking_names_file_tensor_and_both_values(models: SimpleNamespace, config: dict[str, Any]) -> None:
    write_model(models.b, {**models.tensors["b"], "model.norm.weight": torch.zeros(17)})

    with pytest.raises(ModelCompatibilityError) as refusal:
        ModelMerger(MergeConfig(**config)).check_compatibility()

    assert str(refusal.value) == (
        f"{models.b}: model.norm.weight: has shape [17] here and [16] in 'a'. Only equal shapes can be merged."
    )


def test_the_config_is_read_again_at_every_call(models: SimpleNamespace, config: dict[str, Any]) -> None:
    merger = ModelMerger(MergeConfig(**config))
    merger.plan()

    merger.config.options["no_such_option"] = 1

    for call in (merger.plan, merger.check_compatibility, merger.load_models, merger.merge):
        with pytest.raises(ConfigError, match="unknown key 'no_such_option'"):
            call()


def test_the_function_merges_to_disk_and_loads_no_model(models: SimpleNamespace, config: dict[str, Any]) -> None:
    with watched() as seen:
        report = modelmerger.merge(MergeConfig(**config))

    assert (report.output, report.tensors, report.models) == (str(models.output), 7, ["a", "b"])
    assert not [name for name in seen.imported if name.startswith("transformers")]


def test_the_function_needs_an_output_path(config: dict[str, Any]) -> None:
    del config["output_path"]

    with pytest.raises(ConfigError, match="no output path"):
        modelmerger.merge(MergeConfig(**config))


def test_models_that_fit_are_compatible(models: SimpleNamespace) -> None:
    assert check_model_compatibility([{"path": str(models.a)}, {"path": models.b, "weight": 2}]) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: (m.b / "config.json").unlink(), "Config not found"),
        (lambda m: shutil.rmtree(m.b), "does not exist"),
        (
            lambda m: write_model(m.b, {**m.tensors["b"], "model.embed_tokens.weight": torch.zeros(25, 16)}),
            "the vocabulary was resized: 25 rows here, 24 in",
        ),
        (lambda m: (m.b / "config.json").write_text('{"hidden_size": 17}'), "hidden_size is 17 here and 16 in"),
        (lambda m: write_model(m.b, {"t": torch.zeros(2)}), "has this tensor and"),
        (lambda m: (m.b / "model.safetensors").write_bytes(b""), "the file is 0 bytes long"),
    ],
    ids=["no config", "no model", "vocabulary", "hidden size", "tensors", "damaged"],
)
def test_models_that_do_not_fit_are_incompatible(models: SimpleNamespace, change: Any, words: str) -> None:
    change(models)

    with pytest.raises(ModelCompatibilityError, match=re.escape(words)) as refusal:
        check_model_compatibility([{"path": str(models.a)}, {"path": str(models.b)}])
    assert all(str(models.b) in problem.where for problem in refusal.value.problems)


def test_a_model_without_path_is_said(models: SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match=re.escape("models[1]: the key 'path' is missing")):
        check_model_compatibility([{"path": str(models.a)}, {"weight": 1}])
    with pytest.raises(ConfigError, match=re.escape("models[1]: must be a mapping with a 'path', got './b'")):
        check_model_compatibility([{"path": str(models.a)}, "./b"])


def test_a_model_replaced_between_two_merges_is_the_one_that_is_used(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    """C9."""
    config["options"] = {"overwrite": True}
    merger = ModelMerger(MergeConfig(**config))
    modelmerger.merge(merger.config)
    new = random_tensors(9)
    write_model(models.b, new)

    modelmerger.merge(merger.config)

    exact = 0.6 * models.tensors["a"]["model.norm.weight"].double() + 0.4 * new["model.norm.weight"].double()
    merged = load_file(models.output / "model.safetensors")["model.norm.weight"].double()
    torch.testing.assert_close(merged, exact, rtol=2**-8, atol=0)


def test_the_root_logger_is_left_alone(models: SimpleNamespace, config: dict[str, Any]) -> None:
    root, level = logging.getLogger(), logging.getLogger().level
    config["options"] = {"verbose": True}
    handlers = list(root.handlers)

    modelmerger.merge(MergeConfig(**config))

    assert (root.level, root.handlers) == (level, handlers)
    assert logging.getLogger("modelmerger").level == logging.INFO


def parameters_in_memory(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if not parameter.is_meta)


@pytest.mark.parametrize("published", [True, False], ids=["published", "temporary"])
def test_in_low_memory_mode_the_returned_weights_stay_on_the_disk(
    tiny: dict[str, Any], temporary: Path, published: bool
) -> None:
    expected = logits(ModelMerger(MergeConfig(**tiny)).merge())
    tiny["options"] = {"low_memory_mode": True, "overwrite": True}
    if not published:
        del tiny["output_path"]

    model = ModelMerger(MergeConfig(**tiny)).merge()

    assert parameters_in_memory(model) == 0
    assert model.device == torch.device("cpu")
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert torch.equal(logits(model), expected)
    assert bool(list(temporary.iterdir())) != published
    del model
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_in_low_memory_mode_pickled_weights_are_loaded_and_that_is_said(
    tiny: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    tiny["options"] = {"low_memory_mode": True, "use_safetensors": False}

    model = ModelMerger(MergeConfig(**tiny)).merge()

    assert parameters_in_memory(model) > 0
    said = [record.getMessage() for record in caplog.records if record.name == "modelmerger"]
    assert said == [
        "low_memory_mode: the returned model is loaded, since weights are read lazily from safetensors alone."
    ]


def test_the_returned_model_is_placed_as_the_map_says(tiny: dict[str, Any]) -> None:
    tiny["options"] = {"device_map": {"model": "cpu", "lm_head": "disk"}}

    model = ModelMerger(MergeConfig(**tiny)).merge()

    assert model.hf_device_map == {"model": "cpu", "lm_head": "disk"}


def test_gradient_checkpointing_is_on_and_the_cache_off(tiny: dict[str, Any]) -> None:
    assert not ModelMerger(MergeConfig(**tiny)).merge().model.gradient_checkpointing
    tiny["options"] = {"gradient_checkpointing": True, "overwrite": True}

    model = ModelMerger(MergeConfig(**tiny)).merge()

    assert model.model.gradient_checkpointing
    assert model.config.use_cache is False
    model.train()
    model(torch.arange(3, 11).view(1, 8), labels=torch.arange(3, 11).view(1, 8)).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_gradient_checkpointing_with_weights_on_the_disk_is_warned_of(
    tiny: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    tiny["options"] = {"gradient_checkpointing": True, "low_memory_mode": True}

    ModelMerger(MergeConfig(**tiny)).merge()

    said = [record.getMessage() for record in caplog.records if record.name == "modelmerger"]
    assert said == ["gradient_checkpointing: the weights stay on the disk, and training needs them loaded."]


@pytest.mark.parametrize("exists", [True, False])
def test_the_offload_folder_holds_a_merge_without_output_path_and_is_cleared(
    tiny: dict[str, Any], tmp_path: Path, temporary: Path, exists: bool
) -> None:
    folder = tmp_path / "offload"
    if exists:
        folder.mkdir()
    del tiny["output_path"]
    tiny["options"] = {"offload_folder": str(folder)}

    model = ModelMerger(MergeConfig(**tiny)).merge()

    assert [path.name for path in folder.glob("*/*")] == ["merged"]
    assert list(temporary.iterdir()) == []
    assert logits(model).isfinite().all()
    del model
    gc.collect()
    assert folder.exists() == exists
    assert not exists or list(folder.iterdir()) == []


def test_what_others_put_in_the_offload_folder_stays(tiny: dict[str, Any], tmp_path: Path) -> None:
    del tiny["output_path"]
    tiny["options"] = {"offload_folder": str(tmp_path / "offload")}

    model = ModelMerger(MergeConfig(**tiny)).merge()
    (tmp_path / "offload" / "theirs").touch()
    del model
    gc.collect()

    assert os.listdir(tmp_path / "offload") == ["theirs"]


def test_an_offload_folder_that_cannot_be_made_is_said(tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny["options"] = {"offload_folder": str(tmp_path / "absent" / "offload")}

    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        ModelMerger(MergeConfig(**tiny)).merge()


SAYS = """
import json, logging, os, sys
from modelmerger import MergeConfig, merge
import modelmerger.run, modelmerger.run_in_memory, torch

model, output, cases = json.loads(sys.argv[1])
for number, (setup, options) in enumerate(cases):
    if os.fork() == 0:  # a process of its own, which has imported what it needs
        exec(setup)
        merge(MergeConfig(strategy="weighted", models=[{"path": model}], output_path=f"{output}{number}", options=options))
        sys.stdout.flush()
        os._exit(0)
    assert os.wait()[1] == 0
    print("END", file=sys.stderr, flush=True)
"""


def test_what_is_asked_for_is_shown_once(models: SimpleNamespace) -> None:
    cases: dict[str, tuple[str, dict[str, Any], int]] = {
        "verbose": ("", {"verbose": True}, 2),
        "level": ("", {"log_level": "INFO"}, 2),
        "quiet": ("", {}, 0),
        "level wins": ("", {"verbose": True, "log_level": "ERROR"}, 0),
        "a root handler": ("logging.basicConfig(level=logging.INFO)", {"verbose": True}, 2),
        "a quiet root": ("logging.basicConfig(level=logging.WARNING)", {"verbose": True}, 2),
    }
    told = json.dumps([str(models.a), str(models.output), [case[:2] for case in cases.values()]])

    done = subprocess.run([sys.executable, "-c", SAYS, told], capture_output=True, text=True, check=True, timeout=60)

    said = done.stderr.split("END\n")
    assert said.pop() == ""
    lines = {
        name: sum(
            "merging 7 tensors" in line or "published" in line for line in text.splitlines() if "modelmerger" in line
        )
        for name, text in zip(cases, said, strict=True)
    }
    assert lines == {name: case[2] for name, case in cases.items()}
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("models", "said"),
    [
        (["./a", "./b"], "models[0]: must be a mapping with a 'path', got './a'. Write it as path: ./a"),
        ("./a", "models: must be a list of models, each with a 'path', got './a'"),
        ({"a": "./a"}, "models: must be a list of models, each with a 'path'"),
        ([], "models: must hold at least one model"),
        ([{"path": None}], "models[0]: the key 'path' is missing"),
    ],
    ids=str,
)
def test_models_that_are_compared_are_mappings_with_a_path(models: Any, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        check_model_compatibility(models)
    assert str(refusal.value).startswith(said)
