"""What is a model on the disk: directories with or without config.json, whole or in shards, and single files."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import CONFIG, random_tensors, write_model
from modelmerger import HEADS, Checkpoint, InputError, LoadContext, MergeConfig, ModelReference, merge, torch_dtype
from modelmerger_plugins import directory
from safetensors.torch import load_file, save_file


def opened(path: object) -> Checkpoint | None:
    return directory.load_model(
        ModelReference(str(path), "model", "models[0].path"), LoadContext(), directory.Options()
    )


def whole(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    info = checkpoint.tensors[name]
    content = bytearray(info.bytes)
    checkpoint.read(name, 0, info.elements, memoryview(content))
    return torch.frombuffer(content, dtype=torch_dtype(info.dtype)).view(info.shape)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_directory_gives_every_tensor_its_bits(tmp_path: Path, shards: int) -> None:
    tensors = random_tensors(5)
    path = write_model(tmp_path / "model", tensors, shards=shards)

    checkpoint = opened(path)

    assert checkpoint.tensors.keys() == tensors.keys()
    assert all(torch.equal(whole(checkpoint, name), tensor) for name, tensor in tensors.items())
    assert len(checkpoint.files) == shards
    assert (checkpoint.donor.directory, checkpoint.donor.config) == (path, CONFIG)
    assert checkpoint.place == str(path)


def test_any_elements_of_a_tensor_can_be_read(tmp_path: Path) -> None:
    values = torch.arange(100, dtype=torch.float32)
    checkpoint = opened(write_model(tmp_path, {"first": torch.zeros(3), "t": values}, None))
    content = bytearray(4 * 11)

    checkpoint.read("t", 42, 53, memoryview(content))

    assert torch.equal(torch.frombuffer(content, dtype=torch.float32), values[42:53])


def test_a_single_file_is_a_model_without_a_directory(tmp_path: Path) -> None:
    tensors = random_tensors(5)
    save_file(tensors, tmp_path / "weights.safetensors")

    checkpoint = opened(tmp_path / "weights.safetensors")

    assert checkpoint.tensors.keys() == tensors.keys()
    assert (checkpoint.donor.directory, checkpoint.donor.config, checkpoint.aliases) == (None, None, {})
    assert checkpoint.place == str(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "diffusion_pytorch_model.safetensors"])
def test_a_directory_needs_no_config(tmp_path: Path, name: str) -> None:
    save_file({"t": torch.ones(2)}, tmp_path / name)

    checkpoint = opened(tmp_path)

    assert (list(checkpoint.tensors), checkpoint.donor.directory) == (["t"], tmp_path)


def test_files_and_directories_without_config_merge_into_a_directory_without_config(
    models: SimpleNamespace, config: dict[str, Any]
) -> None:
    (models.b / "config.json").unlink()
    config["models"] = [{"path": str(models.a / "model.safetensors")}, {"path": str(models.b)}]

    merge(MergeConfig(**config))

    assert sorted(os.listdir(models.output)) == ["README.md", "model.safetensors", "modelmerger.json"]
    assert load_file(models.output / "model.safetensors").keys() == models.tensors["a"].keys()


def test_files_of_other_parts_beside_the_model_are_left_alone(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model", {"t": torch.ones(2)})
    save_file({"other": torch.ones(2)}, path / "consolidated.safetensors")
    (path / "pytorch_model.bin").write_bytes(b"pickled")
    (path / "original").mkdir()

    assert list(opened(path).tensors) == ["t"]


def test_the_directory_may_be_a_link_and_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "model", {"t": torch.ones(2)})
    (tmp_path / "link").symlink_to("model")
    monkeypatch.chdir(tmp_path)

    assert list(opened("link").tensors) == list(opened("./model/").tensors) == ["t"]


def test_a_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "model", {"t": torch.ones(2)})
    monkeypatch.setenv("HOME", str(tmp_path))

    assert list(opened("~/model").tensors) == ["t"]


@pytest.mark.parametrize("path", ["absent", "org/name", "absent.safetensors", "absent.bin", "~no-such-user/x", "a\0b"])
def test_what_is_not_there_may_be_another_plugins(path: str) -> None:
    assert opened(path) is None


def test_what_cannot_be_listed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelmerger import InputError

    def denied(_: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(InputError, match="cannot be listed: Permission denied"):
        opened(tmp_path)


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelmerger import InputError

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    checkpoint = opened(write_model(tmp_path, {"t": torch.ones(2)}))
    monkeypatch.setattr(os, "preadv", broken)
    for read in (lambda: opened(tmp_path), lambda: whole(checkpoint, "t")):
        with pytest.raises(InputError, match=r"model\.safetensors: cannot be read: Input/output error"):
            read()


TIED_HEADS = {
    "tied": ({"tie_word_embeddings": True}, dict.fromkeys(HEADS, "model.embed_tokens.weight")),
    "not said": ({}, dict.fromkeys(HEADS, "model.embed_tokens.weight")),
    "untied": ({"tie_word_embeddings": False}, {}),
}


@pytest.mark.parametrize("case", TIED_HEADS)
def test_a_head_that_the_file_leaves_out_is_the_embedding_unless_the_config_says_otherwise(
    tmp_path: Path, case: str
) -> None:
    config, aliases = TIED_HEADS[case]

    assert opened(write_model(tmp_path, {"model.embed_tokens.weight": torch.ones(2, 2)}, config)).aliases == aliases


@pytest.mark.parametrize("head", ["lm_head.weight", "embed_out.weight", "language_model.lm_head.weight"])
def test_a_head_that_is_there_is_no_alias(tmp_path: Path, head: str) -> None:
    tensors = {"model.embed_tokens.weight": torch.ones(2, 2), head: torch.ones(2, 2)}

    assert opened(write_model(tmp_path, tensors)).aliases == {}


def test_a_tied_gpt_neox_stands_in_with_its_embedding(models: SimpleNamespace, config: dict[str, Any]) -> None:
    embedding, head = torch.full((2, 2), 1.0), torch.full((2, 2), 3.0)
    write_model(models.a, {"gpt_neox.embed_in.weight": embedding, "embed_out.weight": head}, {})
    write_model(models.b, {"gpt_neox.embed_in.weight": embedding * 8}, {"tie_word_embeddings": True})

    merge(MergeConfig(**config))

    merged = load_file(models.output / "model.safetensors")
    torch.testing.assert_close(merged["embed_out.weight"], 0.6 * head + 0.4 * 8 * embedding)


def test_which_of_two_embeddings_a_head_is_tied_to_is_not_guessed(tmp_path: Path) -> None:
    tensors = {f"{part}.embed_tokens.weight": torch.ones(2, 2) for part in ("encoder", "decoder")}

    assert opened(write_model(tmp_path, tensors)).aliases == {}


def test_an_index_may_lie_in_another_order_and_hold_metadata(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model", random_tensors(1), shards=2)
    index_path = path / "model.safetensors.index.json"
    index = json.loads(index_path.read_text())
    index_path.write_text(
        json.dumps({"weight_map": dict(reversed(index["weight_map"].items())), "metadata": {"total_size": 1}})
    )
    shutil.copy(path / "config.json", path / "other.json")

    assert opened(path).tensors.keys() == random_tensors(1).keys()


@pytest.mark.parametrize("name", ["model-00002-of-00003.safetensors", "model-00001-of-00003.safetensors"])
def test_one_shard_that_is_left_of_several_is_no_model(
    models: SimpleNamespace, config: dict[str, Any], name: str
) -> None:
    for model in (models.a, models.b):
        (model / "model.safetensors").rename(model / name)
    with pytest.raises(InputError, match=rf"has {name} alone of 3 files that hold a model together\. Add the others"):
        merge(MergeConfig(**config))


def test_a_shard_that_is_the_only_one_is_a_model(models: SimpleNamespace, config: dict[str, Any]) -> None:
    (models.a / "model.safetensors").rename(models.a / "model-00001-of-00001.safetensors")
    merge(MergeConfig(**config))
