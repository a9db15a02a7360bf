"""`use_safetensors: false`: what torch and transformers load, laid out ahead, verified and resumed as safetensors are."""

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import random_tensors, write_model
from faults.stopping import leave_unfinished
from inputs.tiny_models import logits, said_by_transformers, tied
from modelmerger import (
    DTYPES,
    ConfigError,
    InputError,
    Layout,
    MergeConfig,
    ModelMerger,
    OutputTensor,
    merge,
    torch_dtype,
    verify,
)
from modelmerger_plugins.torch_bin import Options, save_model
from modelmerger_plugins.torch_bin.archive import ALIGNMENT
from safetensors.torch import load_file

INDEX = "pytorch_model.bin.index.json"
BLOCK = 16 << 20
"""What is made at a time, and resumed."""

__all__ = ["tied"]


def output(name: str, dtype: str, *shape: int) -> OutputTensor:
    return OutputTensor(name, dtype, shape, torch.Size(shape).numel() * DTYPES[dtype].bits // 8)


def laid_out(tensors: list[OutputTensor], most: int = 10**12) -> Layout:
    layout = save_model(tensors, most, stem="model", options=Options(use_safetensors=False))
    assert layout is not None
    assert_tiled(layout, tensors)
    return layout


def assert_tiled(layout: Layout, tensors: list[OutputTensor]) -> None:
    """Every tensor lies in one place, and between what lies in a file is neither a hole nor an overlap."""
    placed = [placement.tensor for file in layout.files for placement in file.placements]
    assert sorted(placed, key=lambda tensor: tensor.name) == sorted(tensors, key=lambda tensor: tensor.name)
    for file in layout.files:
        spans = [(p.offset, p.offset + p.tensor.bytes) for p in file.placements]
        spans = sorted(spans + [(offset, offset + len(content)) for offset, content in file.fixed])
        assert [begin for begin, _ in spans] + [file.size] == [0] + [end for _, end in spans]


def write_sparse(layout: Layout, folder: Path) -> Path:
    """The first file of a layout, its tensors left empty."""
    (file, *_) = layout.files
    with (folder / file.name).open("wb") as opened:
        for offset, content in file.fixed:
            opened.seek(offset)
            opened.write(content)
        opened.truncate(file.size)
    return folder / file.name


@pytest.mark.parametrize("how", [{}, {"mmap": True}], ids=["read", "mapped"])
def test_torch_loads_every_dtype_and_shape(tmp_path: Path, how: dict[str, bool]) -> None:
    tensors = [output(dtype, dtype, 3, 5) for dtype in DTYPES if DTYPES[dtype].torch_name]
    tensors += [output("scalar", "F32"), output("empty", "F16", 0, 3), output("many", "BF16", 2, 3, 4, 5, 6)]
    layout = laid_out(tensors)
    path = write_sparse(layout, tmp_path)
    with path.open("r+b") as file:
        for placement in layout.files[0].placements:
            file.seek(placement.offset)
            file.write(bytes(range(1, placement.tensor.bytes % 250 + 1)))

    loaded = torch.load(path, weights_only=True, **how)

    assert list(loaded) == [tensor.name for tensor in tensors]
    for tensor in tensors:
        found = loaded[tensor.name]
        assert (found.dtype, tuple(found.shape)) == (torch_dtype(tensor.dtype), tensor.shape)
        assert found.is_contiguous()
        content = found.reshape(-1).view(torch.uint8)
        assert content[: tensor.bytes % 250].tolist() == list(range(1, tensor.bytes % 250 + 1))


def test_tensors_are_aligned_and_small_records_have_their_checksum(tmp_path: Path) -> None:
    layout = laid_out([output("a", "U8", 7), output("طبقة", "F64", 3)])

    assert [placement.offset % ALIGNMENT for placement in layout.files[0].placements] == [0, 0]
    with zipfile.ZipFile(write_sparse(layout, tmp_path)) as archive:
        names = [name for name in archive.namelist() if "/data/" not in name]
        assert names == ["archive/data.pkl", "archive/byteorder", "archive/version"]
        assert [archive.read(name) for name in names][1:] == [b"little", b"3\n"]


@pytest.mark.parametrize("sizes", [(5 << 30, 3), (3 << 30, 2 << 30, 3)], ids=["one is large", "offsets are large"])
def test_files_beyond_4_gib(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    layout = laid_out([output(f"t{i}", "U8", size) for i, size in enumerate(sizes)])
    path = write_sparse(layout, tmp_path)
    (*_, last) = layout.files[0].placements
    with path.open("r+b") as file:
        file.seek(last.offset)
        file.write(b"\1\2\3")

    loaded = torch.load(path, weights_only=True, mmap=True)

    assert [tensor.numel() for tensor in loaded.values()] == list(sizes)
    assert list(loaded.values())[-1].tolist() == [1, 2, 3]
    with zipfile.ZipFile(path) as archive:
        found = [info.file_size for info in archive.infolist() if "/data/" in info.filename]
    assert found == list(sizes)


def test_more_records_than_a_small_directory_counts(tmp_path: Path) -> None:
    path = write_sparse(laid_out([output(f"t{i}", "U8", 1) for i in range(66_000)]), tmp_path)

    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == 66_003
    assert len(torch.load(path, weights_only=True, map_location="meta")) == 66_000


def test_shards_are_numbered_and_indexed() -> None:
    layout = laid_out([output("a", "F32", 3), output("b", "F32", 3)], 12)

    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    assert [file.name for file in layout.files] == names
    assert json.loads(layout.documents[INDEX])["weight_map"] == {"a": names[0], "b": names[1]}


def test_a_dtype_that_torch_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"options\.use_safetensors: t: is F4, which torch cannot save"):
        save_model([OutputTensor("t", "F4", (4,), 2)], 100, stem="model", options=Options(use_safetensors=False))


def test_where_safetensors_are_wanted_it_has_nothing_to_say() -> None:
    assert save_model([], 100, stem="model", options=Options()) is None


@pytest.mark.parametrize("shard", ["5GB", 3000])
def test_the_merged_model_loads_as_the_one_in_safetensors(tied: SimpleNamespace, tmp_path: Path, shard: Any) -> None:
    import transformers

    models = [{"path": str(tied.a), "weight": 0.75}, {"path": str(tied.b), "weight": 0.25}]
    options = {"max_shard_size": shard}
    merge(MergeConfig(strategy="weighted", models=models, output_path=str(tmp_path / "safe"), options=options))
    pickled = MergeConfig(
        strategy="weighted",
        models=models,
        output_path=str(tmp_path / "bin"),
        options={**options, "use_safetensors": False},
    )

    returned = ModelMerger(pickled).merge()

    verify(tmp_path / "bin")
    assert not list((tmp_path / "bin").glob("*.safetensors*"))
    assert (tmp_path / "bin" / INDEX).exists() == (shard == 3000)
    with said_by_transformers() as said:
        loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "bin", use_safetensors=False)
    expected = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "safe")
    assert said == []
    assert torch.equal(logits(loaded.eval()), logits(expected.eval()))
    assert torch.equal(logits(returned), logits(expected))


def test_what_was_written_is_an_input_again(models: SimpleNamespace, config: dict[str, Any]) -> None:
    config["options"] = {"use_safetensors": False}
    merge(MergeConfig(**config))
    again = {"strategy": "weighted", "models": [{"path": str(models.output)}], "options": {"allow_pickle": True}}

    merge(MergeConfig(**again, output_path=str(models.folder / "again")))

    expected = torch.load(models.output / "pytorch_model.bin", weights_only=True)
    found = load_file(models.folder / "again" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_without_config_json_the_returned_checkpoint_reads_it(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", {"t": torch.arange(4.0)}, None)
    merger = ModelMerger(
        MergeConfig(strategy="weighted", models=[{"path": str(folder)}], options={"use_safetensors": False})
    )

    checkpoint = merger.merge()

    content = bytearray(16)
    checkpoint.read("t", 0, 4, memoryview(content))
    assert torch.frombuffer(content, dtype=torch.float32).tolist() == [0, 1, 2, 3]


def test_an_interrupted_merge_resumes_and_a_flipped_bit_is_named(tmp_path: Path) -> None:
    shapes = {"first": (BLOCK // 2,), "second": (BLOCK // 2,)}
    folder = write_model(tmp_path / "model", random_tensors(1, torch.float32, shapes))
    config = MergeConfig(
        strategy="weighted",
        models=[{"path": str(folder)}],
        output_path=str(tmp_path / "merged"),
        options={"use_safetensors": False},
    )
    leave_unfinished(config)
    path = tmp_path / ".merged.modelmerger" / "model" / "pytorch_model.bin"
    with path.open("r+b") as file:
        file.seek(BLOCK + 5)
        file.write(b"torn")

    report = merge(config)

    assert report.bytes_written - BLOCK == report.bytes_reused
    loaded = torch.load(tmp_path / "merged" / "pytorch_model.bin", weights_only=True)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in load_file(folder / "model.safetensors").items())
    verify(tmp_path / "merged")
    with (tmp_path / "merged" / "pytorch_model.bin").open("r+b") as file:
        file.seek(3 * BLOCK)
        file.write(b"x")
    with pytest.raises(InputError, match=r"pytorch_model\.bin: second: differs from what was published"):
        verify(tmp_path / "merged")
