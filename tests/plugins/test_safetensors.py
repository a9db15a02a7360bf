"""How the merged weights are laid out: shards as transformers cuts them, aligned, and readable by the safetensors package."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger import DTYPES, MergeConfig, OutputTensor, merge
from modelmerger_plugins.safetensors import save_model
from safetensors import safe_open

INDEX = "model.safetensors.index.json"


def tensor(name: str, count: int, dtype: str = "F32") -> OutputTensor:
    return OutputTensor(name, dtype, (count,), count * DTYPES[dtype].bits // 8)


def files(tensors: list[OutputTensor], most: int) -> list[list[str]]:
    return [
        [placement.tensor.name for placement in file.placements]
        for file in save_model(tensors, most, stem="model").files
    ]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([10, 10, 10], [["0", "1", "2"]]),
        ([20, 10, 10], [["0", "1"], ["2"]]),
        ([40, 1, 40], [["0"], ["1"], ["2"]]),
        ([1, 40, 1], [["0"], ["1"], ["2"]]),
        ([30], [["0"]]),
        ([31], [["0"]]),
        ([0, 30, 0, 1], [["0", "1", "2"], ["3"]]),
    ],
    ids=str,
)
def test_tensors_fill_shards_in_their_order(sizes: list[int], expected: list[list[str]]) -> None:
    assert files([tensor(str(i), size) for i, size in enumerate(sizes)], 120) == expected


def test_a_shard_ends_where_its_header_would_grow_beyond_what_readers_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    from modelmerger_plugins import safetensors

    monkeypatch.setattr(safetensors, "MOST_HEADER_BYTES", 3000)
    layout = save_model([tensor(f"نموذج {i:0100}", 1) for i in range(30)], 10**9, stem="model")
    assert layout is not None

    assert len(layout.files) > 3
    assert all(len(file.fixed[0][1].rstrip()) < 1500 for file in layout.files)


def test_one_file_has_no_index() -> None:
    layout = save_model([tensor("a", 3)], 10**9, stem="model")

    assert [file.name for file in layout.files] == ["model.safetensors"]
    assert layout.documents == {}


def test_shards_are_numbered_and_indexed() -> None:
    layout = save_model([tensor("طبقة", 3), tensor("b", 3)], 12, stem="model")

    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert [file.name for file in layout.files] == names
    assert json.loads(layout.documents[INDEX]) == {
        "metadata": {"total_size": 24},
        "weight_map": {"b": names[1], "طبقة": names[0]},
    }


def test_every_tensor_begins_at_a_multiple_of_its_element_size_and_of_the_header() -> None:
    tensors = [tensor("u8", 3, "U8"), tensor("f16", 3, "F16"), tensor("f64", 1, "F64"), tensor("f32", 1, "F32")]

    (file,) = save_model(tensors, 10**9, stem="model").files

    ((start, header),) = file.fixed
    assert (start, len(header) % 8) == (0, 0)
    offsets = {placement.tensor.name: placement.offset - len(header) for placement in file.placements}
    assert offsets == {"f64": 0, "f32": 8, "f16": 12, "u8": 18}
    assert file.size == len(header) + 21


def test_the_safetensors_package_reads_what_was_laid_out(models: SimpleNamespace, config: dict[str, Any]) -> None:
    config["options"] = {"max_shard_size": 1000}
    merge(MergeConfig(**config))

    weight_map = json.loads((models.output / INDEX).read_text())["weight_map"]

    assert weight_map.keys() == models.tensors["a"].keys()
    for name, file in weight_map.items():
        with safe_open(models.output / file, "pt") as opened:
            assert opened.metadata() == {"format": "pt"}
            assert opened.get_tensor(name).shape == models.tensors["a"][name].shape


def test_transformers_cuts_at_the_same_places(tmp_path: Path, tied: SimpleNamespace) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tied.a)
    model.save_pretrained(tmp_path / "theirs", max_shard_size=3000)
    merge(
        MergeConfig(
            strategy="weighted",
            models=[{"path": str(tied.a)}],
            output_path=str(tmp_path / "ours"),
            options={"max_shard_size": 3000},
        )
    )

    ours, theirs = (json.loads((tmp_path / name / INDEX).read_text()) for name in ("ours", "theirs"))

    assert ours["weight_map"].keys() == theirs["weight_map"].keys()
    assert ours["metadata"]["total_size"] == theirs["metadata"]["total_size"]
    assert all(sum(sizes) <= 3000 or len(sizes) == 1 for sizes in _sizes(tmp_path / "ours"))


def _sizes(folder: Path) -> list[list[int]]:
    found = []
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as opened:
            found.append([opened.get_tensor(name).nbytes for name in opened.keys()])  # noqa: SIM118 (no mapping)
    return found
