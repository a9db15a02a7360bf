"""Weights of an embedding model's modules, in folders of their own, are merged as the model is."""

import json
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import directory_state, random_tensors, write_model
from modelmerger import InputError, MergeConfig, MergeReport, ModelCompatibilityError, ModelMerger, Watch, merge, verify
from safetensors.torch import load_file, save_file

from tests.faults.stopping import Steps, killed_merge, spread, staging_path

DENSE = {"linear.weight": (6, 16), "linear.bias": (6,)}
FOLDERS = ("2_Dense",)
TYPE = "sentence_transformers.models"


def write_modules(
    folder: Path,
    seed: int,
    folders: Sequence[str] = FOLDERS,
    shapes: Mapping[str, Sequence[int]] = DENSE,
    suffix: str = "safetensors",
) -> dict[str, dict[str, torch.Tensor]]:
    """Lists a pooling and these Dense modules, named by their numbers; the weights of each folder."""
    listed = [{"idx": 0, "name": "0", "path": "", "type": f"{TYPE}.Transformer"}]
    listed.append({"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{TYPE}.Pooling"})
    found = {}
    for number, name in enumerate(folders, 2):
        listed.append({"idx": number, "name": str(number), "path": name, "type": f"{TYPE}.Dense"})
        found[name] = random_tensors(10 * seed + number, torch.float32, shapes)
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "config.json").write_text('{"in_features": 16, "out_features": 6}')
        if suffix == "bin":
            torch.save(found[name], folder / name / "pytorch_model.bin")
        else:
            save_file(found[name], folder / name / "model.safetensors")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode": "mean"}')
    (folder / "modules.json").write_text(json.dumps(listed))
    return found


@pytest.fixture
def embedders(tmp_path: Path) -> dict[str, dict[str, dict[str, torch.Tensor]]]:
    """Three embedding models of one Dense module, `a`, `b` and `base`; the weights of their modules."""
    found = {}
    for seed, name in enumerate(("base", "a", "b")):
        write_model(tmp_path / name, random_tensors(seed))
        found[name] = write_modules(tmp_path / name, seed)
    return found


def entries(folder: Path, **weights: float) -> list[dict[str, Any]]:
    return [{"path": str(folder / name), "weight": weight} for name, weight in weights.items()]


def merged(folder: Path, models: Sequence[Any], strategy: str = "weighted", **more: Any) -> MergeReport:
    return merge(MergeConfig(strategy=strategy, models=models, output_path=str(folder / "merged"), **more))


def assert_mean(found: Path, *parts: tuple[float, Mapping[str, torch.Tensor]]) -> None:
    """The file holds these sums, as float64 has them, rounded once to float32."""
    weights = load_file(found)
    assert weights.keys() == parts[0][1].keys()
    for name, tensor in weights.items():
        exact = sum(factor * of_one[name].double() for factor, of_one in parts)
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor.double(), exact, rtol=2**-22, atol=1e-9)


def test_they_are_merged_published_and_counted(tmp_path: Path, embedders: Any) -> None:
    report = merged(tmp_path, entries(tmp_path, a=0.75, b=0.25))

    output = tmp_path / "merged"
    a, b = (embedders[name]["2_Dense"] for name in "ab")
    assert_mean(output / "2_Dense/model.safetensors", (0.75, a), (0.25, b))
    assert not {"2_Dense/linear.weight"} & load_file(output / "model.safetensors").keys()
    assert (output / "2_Dense/config.json").read_bytes() == (tmp_path / "a/2_Dense/config.json").read_bytes()
    assert [note for note in report.notes if note.severity != "note"] == []
    taken = report.as_dict()["input_tensors"]
    assert {name: (one["merged"], one["left"]) for name, one in taken.items()} == {"a": (9, 0), "b": (9, 0)}
    assert report.as_dict()["beside"]["left"] == {}
    listed = json.loads((output / "modelmerger.json").read_text())["files"]
    assert verify(output).files == len(listed)
    assert "2_Dense/model.safetensors" in listed
    linear = torch.nn.Linear(16, 6)
    linear.load_state_dict(
        {n.removeprefix("linear."): t for n, t in load_file(output / "2_Dense/model.safetensors").items()}
    )


def test_a_flipped_bit_in_them_is_found_and_named(tmp_path: Path, embedders: Any) -> None:
    merged(tmp_path, entries(tmp_path, a=0.5, b=0.5))
    file = tmp_path / "merged/2_Dense/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    with pytest.raises(InputError) as refusal:
        verify(tmp_path / "merged")
    (problem,) = refusal.value.problems
    assert problem.where == str(file)
    assert problem.tensor.startswith("2_Dense/linear.")


def test_they_take_part_in_every_strategy(tmp_path: Path, embedders: Any) -> None:
    told = {"base_model": str(tmp_path / "base"), "options": {"scaling_factor": 0.5, "torch_dtype": "float32"}}
    merged(tmp_path, entries(tmp_path, a=1.0, b=1.0), "task_arithmetic", **told)

    base, a, b = (embedders[name]["2_Dense"] for name in ("base", "a", "b"))
    found = load_file(tmp_path / "merged/2_Dense/model.safetensors")
    for name, tensor in found.items():
        exact = base[name].double() + 0.5 * (a[name].double() + b[name].double() - 2 * base[name].double())
        torch.testing.assert_close(tensor.double(), exact, rtol=2**-20, atol=1e-8)


def test_modules_go_together_by_their_names(tmp_path: Path, embedders: Any) -> None:
    """The folders of the donor are written."""
    a = write_modules(tmp_path / "a", 1, ("2_Dense", "3_Dense"))
    b = write_modules(tmp_path / "b", 2, ("2_Down", "3_Up"))

    merged(tmp_path, entries(tmp_path, a=0.5, b=0.5))

    output = tmp_path / "merged"
    assert_mean(output / "2_Dense/model.safetensors", (0.5, a["2_Dense"]), (0.5, b["2_Down"]))
    assert_mean(output / "3_Dense/model.safetensors", (0.5, a["3_Dense"]), (0.5, b["3_Up"]))
    assert not (output / "2_Down").exists()


def test_pickled_ones_are_merged_where_pickles_may_be_read(tmp_path: Path, embedders: Any) -> None:
    (tmp_path / "b/2_Dense/model.safetensors").unlink()
    b = write_modules(tmp_path / "b", 2, suffix="bin")["2_Dense"]

    with pytest.raises(InputError, match=r"b/2_Dense/pytorch_model.bin: is pickled, .* set allow_pickle: true"):
        merged(tmp_path, entries(tmp_path, a=0.5, b=0.5))
    merged(tmp_path, entries(tmp_path, a=0.5, b=0.5), options={"allow_pickle": True})

    a = embedders["a"]["2_Dense"]
    assert_mean(tmp_path / "merged/2_Dense/model.safetensors", (0.5, a), (0.5, b))


def test_they_are_written_in_the_format_of_the_merge_in_one_file(tmp_path: Path, embedders: Any) -> None:
    options = {"use_safetensors": False, "max_shard_size": "1KB"}
    merged(tmp_path, entries(tmp_path, a=0.5, b=0.5), options=options)

    assert (tmp_path / "merged/pytorch_model.bin.index.json").exists()
    found = torch.load(tmp_path / "merged/2_Dense/pytorch_model.bin", weights_only=True)
    a, b = (embedders[name]["2_Dense"] for name in "ab")
    for name, tensor in found.items():
        torch.testing.assert_close(tensor.double(), (a[name].double() + b[name].double()) / 2, rtol=2**-22, atol=1e-9)
    assert found.keys() == a.keys()


def test_other_shapes_are_refused(tmp_path: Path, embedders: Any) -> None:
    write_modules(tmp_path / "b", 2, shapes={"linear.weight": (8, 16), "linear.bias": (8,)})

    with pytest.raises(ModelCompatibilityError) as refusal:
        ModelMerger(MergeConfig(strategy="weighted", models=entries(tmp_path, a=1, b=1))).check_compatibility()
    said = str(refusal.value)
    assert "2_Dense/linear" in said
    assert "[6" in said
    assert "[8" in said


@pytest.mark.parametrize("how", ["no module of that name", "no list", "no weights"])
def test_where_a_model_has_none_the_donors_are_copied_and_that_is_said(
    tmp_path: Path, embedders: Any, how: str
) -> None:
    if how == "no module of that name":
        listed = json.loads((tmp_path / "b/modules.json").read_text())
        listed[2]["name"] = "projection"
        (tmp_path / "b/modules.json").write_text(json.dumps(listed))
    elif how == "no list":
        (tmp_path / "b/modules.json").unlink()
    else:
        (tmp_path / "b/2_Dense/model.safetensors").unlink()

    report = merged(tmp_path, entries(tmp_path, a=0.5, b=0.5))

    name = "2_Dense/model.safetensors"
    assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()
    (warning,) = [note for note in report.notes if note.severity == "warning"]
    assert warning.where == str(tmp_path / "a" / name)
    assert warning.message == "is the donor's as it is, and not merged: 'b' has no weights of the module '2'."
    assert verify(tmp_path / "merged")


def test_a_merge_within_the_merge_has_them_too(tmp_path: Path, embedders: Any) -> None:
    inner = {"merge": {"strategy": "weighted", "models": entries(tmp_path, a=0.5, b=0.5)}, "weight": 0.5}
    merged(tmp_path, [inner, *entries(tmp_path, base=0.5)])

    a, b, base = (embedders[name]["2_Dense"] for name in ("a", "b", "base"))
    assert_mean(tmp_path / "merged/2_Dense/model.safetensors", (0.25, a), (0.25, b), (0.5, base))


def test_a_dense_module_without_weights_is_said(tmp_path: Path, embedders: Any) -> None:
    """As a model of the Hub has it whose weights there are pickled: those are not fetched."""
    (tmp_path / "a/2_Dense/model.safetensors").unlink()

    report = merged(tmp_path, entries(tmp_path, a=0.5, b=0.5))

    (warning,) = [note for note in report.notes if note.severity == "warning"]
    assert warning.where == str(tmp_path / "a/modules.json")
    assert "lists 2_Dense, which holds no weights" in warning.message


def test_a_returned_model_is_saved_with_them(untied: SimpleNamespace, tmp_path: Path) -> None:
    weights = []
    for seed, name in enumerate("ab"):
        shutil.copytree(getattr(untied, name), tmp_path / name)
        weights.append(write_modules(tmp_path / name, seed)["2_Dense"])
    merger = ModelMerger(MergeConfig("weighted", entries(tmp_path, a=0.5, b=0.5)))

    merger.save_merged_model(merger.merge(), tmp_path / "saved")

    assert_mean(tmp_path / "saved/2_Dense/model.safetensors", (0.5, weights[0]), (0.5, weights[1]))
    assert verify(tmp_path / "saved")


def write_adapter(folder: Path, base: Path, seed: int) -> Path:
    shapes = {"lora_A": (2, 16), "lora_B": (40, 2)}
    tensors = random_tensors(seed, torch.float32, shapes)
    folder.mkdir()
    told = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["mlp"]}
    (folder / "adapter_config.json").write_text(json.dumps({**told, "base_model_name_or_path": str(base)}))
    name = "base_model.model.model.layers.0.mlp.{}.weight"
    save_file({name.format(key): t for key, t in tensors.items()}, folder / "adapter_model.safetensors")
    return folder


def test_adapters_have_their_own_or_those_of_their_base(tmp_path: Path, embedders: Any) -> None:
    for seed, name in enumerate(("x", "y"), 5):
        write_adapter(tmp_path / name, tmp_path / "base", seed)
    y = write_modules(tmp_path / "y", 9)["2_Dense"]

    merged(tmp_path, entries(tmp_path, x=0.5, y=0.5))

    base = embedders["base"]["2_Dense"]
    assert_mean(tmp_path / "merged/2_Dense/model.safetensors", (0.5, base), (0.5, y))
    assert (tmp_path / "merged/modules.json").read_bytes() == (tmp_path / "base/modules.json").read_bytes()


def test_merged_updates_leave_them_as_they_are(tmp_path: Path, embedders: Any) -> None:
    for seed, name in enumerate(("x", "y"), 5):
        write_adapter(tmp_path / name, tmp_path / "base", seed)

    told = {"peft_config": {"merge_adapters": True}, "options": {"preserve_base_model": False}}
    report = merged(tmp_path, entries(tmp_path, x=0.5, y=0.5), **told)

    name = "2_Dense/model.safetensors"
    assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "base" / name).read_bytes()
    (warning,) = [str(note) for note in report.notes if "not merged" in note.message]
    assert "updates of adapters are merged" in warning


def test_a_merge_that_was_killed_goes_on_with_them(tmp_path: Path, embedders: Any) -> None:
    output, steps = tmp_path / "merged", Steps()
    config = {"strategy": "weighted", "models": entries(tmp_path, a=0.75, b=0.25), "output_path": str(output)}
    merge(MergeConfig(**config), Watch(step=steps))
    new = directory_state(output)
    assert ("create", staging_path(output) / "model/2_Dense/model.safetensors") in steps.seen
    assert ("fsync", staging_path(output) / "model/2_Dense") in steps.seen

    for at in spread(len(steps.seen), 8):
        shutil.rmtree(output)
        assert killed_merge(config, at) == -signal.SIGKILL
        assert directory_state(output) in (None, new), steps.seen[at - 1]
        merge(MergeConfig(**config))
        assert directory_state(output) == new, steps.seen[at - 1]


def test_an_output_with_folders_is_overwritten_by_one_without(tmp_path: Path, embedders: Any) -> None:
    merged(tmp_path, entries(tmp_path, a=0.5, b=0.5))
    (tmp_path / "a/modules.json").unlink()

    merged(tmp_path, entries(tmp_path, a=0.5, b=0.5), options={"overwrite": True})

    assert not (tmp_path / "merged/2_Dense").exists()
    assert verify(tmp_path / "merged")
