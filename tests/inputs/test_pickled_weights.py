"""`allow_pickle`: files of torch.save are read as safetensors are, and nothing in them is executed."""

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import CONFIG, write_model
from inputs.tiny_models import load, logits, tied
from inputs.watching import watched
from modelmerger import (
    Checkpoint,
    InputChangedError,
    InputError,
    LoadContext,
    MergeConfig,
    ModelReference,
    Watch,
    check_model_compatibility,
    merge,
    torch_dtype,
)
from modelmerger_plugins import directory
from packaging.version import Version
from safetensors.torch import load_file

__all__ = ["tied"]

LOADS_SPARSE = Version(torch.__version__) < Version("2.14")
"""Newer releases of torch load no sparse tensor without its numbers."""


class Explosive:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (open, (str(self.mark), "w"))


def opened(path: Path) -> Checkpoint:
    checkpoint = directory.load_model(
        ModelReference(str(path), "model", "models[0].path"), LoadContext(), directory.Options(allow_pickle=True)
    )
    assert checkpoint is not None
    return checkpoint


def whole(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    info = checkpoint.tensors[name]
    content = bytearray(info.bytes)
    checkpoint.read(name, 0, info.elements, memoryview(content))
    return torch.frombuffer(content, dtype=torch_dtype(info.dtype)).view(info.shape)


def write_pickled(folder: Path, tensors: dict[str, torch.Tensor], shards: int = 1) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return folder
    names = [f"pytorch_model-{i + 1:05d}-of-{shards:05d}.bin" for i in range(shards)]
    placed = {tensor: names[i % shards] for i, tensor in enumerate(tensors)}
    for name in names:
        torch.save({t: tensors[t] for t in tensors if placed[t] == name}, folder / name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": placed}))
    return folder


@pytest.mark.parametrize("shards", [1, 3])
def test_a_pickled_model_merges_as_the_same_model_in_safetensors(
    models: SimpleNamespace, config: dict[str, Any], shards: int
) -> None:
    merge(MergeConfig(**config))
    pickled = write_pickled(models.folder / "pickled", models.tensors["b"], shards)
    config["models"][1]["path"] = str(pickled)

    merge(MergeConfig(**config | {"output_path": str(models.folder / "second"), "options": {"allow_pickle": True}}))

    expected = load_file(models.output / "model.safetensors")
    found = load_file(models.folder / "second" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.bin"])
def test_a_single_file_of_every_dtype(tmp_path: Path, name: str) -> None:
    dtypes = ["float64", "float32", "float16", "bfloat16", "int64", "uint8", "bool", "float8_e4m3fn"]
    tensors = {dtype: torch.arange(24).view(4, 6).to(getattr(torch, dtype)) for dtype in dtypes}
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.empty(0, 3), "part": tensors["float32"][1:3]}
    torch.save(OrderedDict(tensors, parameter=torch.nn.Parameter(torch.ones(3))), tmp_path / name)

    checkpoint = opened(tmp_path / name)

    assert checkpoint.tensors.keys() == {*tensors, "parameter"}
    for key, tensor in tensors.items():
        assert checkpoint.tensors[key].shape == tuple(tensor.shape)
        if tensor.numel():
            assert torch.equal(
                whole(checkpoint, key).reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)
            )


def test_a_transformers_model_saved_with_its_tied_head(tied: SimpleNamespace, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    (folder / "config.json").write_bytes((tied.a / "config.json").read_bytes())
    torch.save(load(tied.a)[0].state_dict(), folder / "pytorch_model.bin")
    models = [{"path": str(folder)}, {"path": str(tied.b)}]

    merge(
        MergeConfig(
            strategy="weighted",
            models=models,
            output_path=str(tmp_path / "merged"),
            options={"allow_pickle": True, "preserve_tokenizer": False},
        )
    )

    models[0]["path"] = str(tied.a)
    merge(MergeConfig(strategy="weighted", models=models, output_path=str(tmp_path / "second")))
    assert torch.equal(logits(load(tmp_path / "merged")[0]), logits(load(tmp_path / "second")[0]))
    assert opened(folder).aliases == {"lm_head.weight": "model.embed_tokens.weight"}


def test_safetensors_win_where_both_are(tmp_path: Path) -> None:
    folder = write_pickled(tmp_path / "model", {"pickled": torch.ones(2)})
    write_model(folder, {"safe": torch.ones(2)})

    assert list(opened(folder).tensors) == ["safe"]


def test_the_function_that_compares_models_refuses_pickles(tmp_path: Path) -> None:
    folder = write_pickled(tmp_path / "model", {"t": torch.ones(2)})

    with pytest.raises(InputError, match=r"is pickled.*or set allow_pickle: true"):
        check_model_compatibility([{"path": str(folder)}])


def archive(data: bytes, compression: int = zipfile.ZIP_STORED, byteorder: bytes = b"little") -> bytes:
    """What looks like a file of torch.save with this pickle in it, and one record of 40 bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as made:
        made.writestr("archive/data.pkl", data)
        made.writestr("archive/byteorder", byteorder)
        made.writestr("archive/data/0", b"\0" * 40)
        made.writestr("archive/version", b"3\n")
    return content.getvalue()


def saved(value: Any) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


def pickle_of(value: Any) -> bytes:
    return zipfile.ZipFile(io.BytesIO(saved(value))).read("archive/data.pkl")


HOSTILE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "a raw pickle": (lambda mark: pickle.dumps(Explosive(mark)), "the file is not a zip archive"),
    "an empty file": (lambda _: b"", "the file is not a zip archive"),
    "code in an archive": (
        lambda mark: archive(pickle.dumps(Explosive(mark))),
        "torch cannot load it as weights alone",
    ),
    "code beside a tensor": (
        lambda mark: saved({"t": torch.ones(2), "u": Explosive(mark)}),
        "torch cannot load it as weights alone",
    ),
    "half a file": (lambda _: saved({"t": torch.ones(1000)})[:3000], "the file is not a sound zip archive"),
    "a compressed file": (
        lambda _: archive(pickle_of({"t": torch.ones(10)}), zipfile.ZIP_DEFLATED),
        "its records are compressed",
    ),
    "big endian": (
        lambda _: archive(pickle_of({"t": torch.ones(10)}), byteorder=b"big!!!"),
        "its numbers are big endian",
    ),
    "more than the record": (
        lambda _: archive(pickle_of({"t": torch.ones(11)})),
        "t: it needs bytes 0 to 44 of a record that has 40 bytes. Is the file complete?",
    ),
    "a list": (lambda _: saved([torch.ones(2)]), "the file holds a list, not a mapping of names to tensors"),
    "another object": (lambda _: saved({"t": torch.ones(2), "step": 3}), "step: this is an int, not a tensor"),
    "nested": (
        lambda _: saved({"model": {"t": torch.ones(2)}}),
        "model: this is a dict, not a tensor. Save the state_dict",
    ),
    "a number as name": (lambda _: saved({7: torch.ones(2)}), "the file has the key 7"),
    "a bad name": (lambda _: saved({"a\nb": torch.ones(2)}), "a tensor's name has a control character"),
    "transposed": (lambda _: saved({"t": torch.ones(2, 3).t()}), "t: it is stored transposed or with gaps"),
    "sparse": (
        lambda _: saved({"t": torch.ones(2, 3).to_sparse()}),
        "t: this is a sharded, sparse or quantised tensor" if LOADS_SPARSE else "torch cannot load it as weights alone",
    ),
    "a dtype of no file": (lambda _: saved({"t": torch.ones(2, dtype=torch.complex128)}), "safetensors cannot store"),
    "nothing": (lambda _: saved({}), "holds no tensor"),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_nothing_in_a_pickle_is_executed_and_what_is_wrong_is_said(
    models: SimpleNamespace, config: dict[str, Any], case: str
) -> None:
    mark = models.folder / "executed"
    make, words = HOSTILE[case]
    folder = write_pickled(models.folder / "pickled", {})
    (folder / "pytorch_model.bin").write_bytes(make(mark))
    config["models"][1]["path"] = str(folder)
    config["options"] = {"allow_pickle": True}

    with watched() as seen, pytest.raises(InputError) as refusal:
        merge(MergeConfig(**config))

    assert words in str(refusal.value)
    assert str(refusal.value).startswith(str(folder)[:40])
    assert len(refusal.value.lines()) == 1
    assert not mark.exists()
    assert (seen.network, seen.processes, seen.unpickled) == ([], [], [])
    assert not models.output.exists()


def test_a_pickled_file_that_changes_meanwhile_is_noticed(models: SimpleNamespace, config: dict[str, Any]) -> None:
    folder = write_pickled(models.folder / "pickled", models.tensors["b"])
    config["models"][1]["path"] = str(folder)
    config["options"] = {"allow_pickle": True}

    def emptied(_: str, path: Path) -> None:
        if path.name == "modelmerger.json":
            (folder / "pytorch_model.bin").write_bytes(b"")

    with pytest.raises(
        InputChangedError, match=r"pytorch_model\.bin: was .* bytes when the merge was planned and is 0 now"
    ):
        merge(MergeConfig(**config), Watch(step=emptied))
