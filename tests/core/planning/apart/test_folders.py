"""Layouts of which some tensors go to folders."""

import json
import struct
from collections.abc import Sequence

import pytest
from modelmerger import Layout, OutputFile, OutputTensor, Placement, PluginError
from modelmerger.planning.apart.folders import lay_out
from modelmerger_plugins.safetensors import save_model

TENSORS = [
    OutputTensor(name, "F32", (count,), 4 * count)
    for name, count in (("a", 3), ("dense/b", 5), ("c", 2), ("dense/d", 1), ("other.e", 4))
]


def two_shards(tensors: Sequence[OutputTensor], whole: bool) -> Layout:
    return save_model(tensors, 1 << 30 if whole else 12, "model")


def test_each_folder_is_a_file_by_itself() -> None:
    layout = lay_out(TENSORS, {"dense/": "2_Dense", "other.": "x/y", "none.": "z"}, two_shards)

    placed = {file.name: [p.tensor.name for p in file.placements] for file in layout.files}
    assert placed == {
        "model-00001-of-00002.safetensors": ["a"],
        "model-00002-of-00002.safetensors": ["c"],
        "2_Dense/model.safetensors": ["dense/b", "dense/d"],
        "x/y/model.safetensors": ["other.e"],
    }
    assert layout.apart == {"dense/b", "dense/d", "other.e"}
    index = json.loads(layout.documents["model.safetensors.index.json"])
    assert set(index["weight_map"]) == {"a", "c"}
    (_, header), *_ = layout.files[2].fixed
    (length,) = struct.unpack("<Q", header[:8])
    assert {"b", "d"} < set(json.loads(header[8 : 8 + length]))


def test_without_folders_all_is_as_it_was() -> None:
    assert lay_out(TENSORS, {}, two_shards) == two_shards(TENSORS, False)


def test_a_layout_that_loses_a_tensor_of_a_folder_is_refused() -> None:
    def careless(tensors: Sequence[OutputTensor], whole: bool) -> Layout:
        kept = tensors[:1] if whole else tensors
        return Layout("own", [OutputFile(t.name, t.bytes, (), [Placement(t, 0)]) for t in kept])

    with pytest.raises(PluginError, match="'own' does not place every tensor"):
        lay_out([TENSORS[0], TENSORS[1], TENSORS[3]], {"dense/": "2_Dense"}, careless)
