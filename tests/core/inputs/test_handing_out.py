from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from modelmerger import Checkpoint, MergeConfig, ModelMerger, merge_tensors

CHAT = {"w": torch.arange(6.0).view(2, 3), "half": torch.ones(4, dtype=torch.float16), "one": torch.tensor(2.0)}
FORMAL = {name: tensor * 3 for name, tensor in CHAT.items()}
CONFIG = {"strategy": "weighted", "models": [{"path": CHAT, "weight": 0.5}, {"path": FORMAL, "weight": 0.5}]}


def test_a_merged_mapping_hands_out_tensors(tmp_path: Path) -> None:
    merged = ModelMerger(CONFIG).merge()

    assert isinstance(merged, Checkpoint)
    assert isinstance(merged, Mapping)
    assert {*merged} == {*merged.keys()} == {*CHAT}
    assert len(merged) == 3
    assert "w" in merged
    assert "x" not in merged
    for name, tensor in merged.items():
        assert torch.equal(tensor, CHAT[name] * 2)
        assert (tensor.dtype, tensor.shape) == (CHAT[name].dtype, CHAT[name].shape)
    module = torch.nn.Linear(3, 2, bias=False)
    module.load_state_dict({"weight": merged["w"]})
    assert merged.get("x") is None
    with pytest.raises(KeyError):
        merged["x"]
    merged["w"].zero_()
    assert torch.equal(merged["w"], CHAT["w"] * 2)
    assert merged == merged
    assert {merged: 1}[merged] == 1


def test_it_is_a_model_of_further_merges(tmp_path: Path) -> None:
    merger = ModelMerger(CONFIG)
    merged = merger.merge()

    again = merge_tensors("weighted", [merged, CHAT], weights=[1, 0])
    assert torch.equal(again["w"], CHAT["w"] * 2)
    further = ModelMerger({"strategy": "weighted", "models": [{"path": merged}, {"path": CHAT}]}).merge()
    assert torch.equal(further["w"], CHAT["w"] * 1.5)
    based = MergeConfig(strategy="task_arithmetic", models=[{"path": CHAT}], base_model=merged)
    assert torch.equal(ModelMerger(based).merge()["w"], CHAT["w"])
    merger.save_merged_model(merged, tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").exists()
