"""Adapters within a merge that is a model itself are folded as they are in any merge."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from modelmerger import ConfigError, InputError, MergeConfig, ModelMerger, merge
from safetensors.torch import load_file


def soup(bases: SimpleNamespace, three: list[Path], **section: Any) -> dict[str, Any]:
    models = [{"path": str(path), "weight": weight} for path, weight in zip(three[:2], (0.7, 0.3), strict=True)]
    return {"strategy": "weighted", "models": models, "peft_config": {"base_model_path": str(bases.qwen2), **section}}


def test_an_inner_merge_of_adapters_folds_them(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    inner = soup(bases, three)
    merge(MergeConfig(**inner, options={"torch_dtype": "float32"}, output_path=str(tmp_path / "soup")))
    others = {"strategy": "task_arithmetic", "base_model": str(bases.qwen2)}
    for name, model in (("nested", {"merge": inner}), ("flat", {"path": str(tmp_path / "soup")})):
        merge(MergeConfig(**others, models=[{**model, "weight": 0.5}], output_path=str(tmp_path / name)))
    nested, flat = (load_file(tmp_path / name / "model.safetensors") for name in ("nested", "flat"))
    assert nested.keys() == flat.keys()
    assert all(torch.equal(nested[name], flat[name]) for name in flat)
    base = load_file(bases.qwen2 / "model.safetensors")
    assert any(not torch.equal(nested[name], base[name]) for name in base)


def test_updates_are_merged_by_the_outermost_merge_alone(bases: SimpleNamespace, three: list[Path]) -> None:
    inner = soup(bases, three, merge_adapters=True)
    config = MergeConfig(strategy="weighted", models=[{"merge": inner}, {"path": str(bases.qwen2)}])
    key = r"models\[0\]\.merge\.peft_config\.merge_adapters"
    advice = r"Set peft_config\.merge_adapters: false in this merge, which folds each adapter into its base$"
    with pytest.raises(ConfigError, match=rf"^{key}: only the outermost merge can .*{advice}"):
        ModelMerger(config).plan()
    config.models[0]["merge"]["peft_config"]["merge_adapters"] = False
    ModelMerger(config).plan()


@pytest.mark.parametrize("named", [True, False])
def test_a_base_that_is_missing_is_asked_for_in_the_merge_that_needs_it(
    bases: SimpleNamespace, three: list[Path], tmp_path: Path, named: bool
) -> None:
    """The outermost merge has one, and a peft_config; neither is inherited."""
    adapter = tmp_path / "adapter"
    shutil.copytree(three[0], adapter)
    told = adapter / "adapter_config.json"
    told.write_text(json.dumps(json.loads(told.read_text()) | {"base_model_name_or_path": "somebody/else"}))
    inner = {"strategy": "weighted", "models": [{"path": str(adapter)}]}
    config: dict[str, Any] = {
        "strategy": "task_arithmetic",
        "models": [{"path": "soup"} if named else {"merge": inner}],
        "merges": {"soup": inner} if named else {},
        "base_model": str(bases.qwen2),
        "peft_config": {"base_model_path": str(bases.qwen2)},
    }
    where = "merges.soup" if named else "models[0].merge"
    with pytest.raises(InputError) as refused:
        ModelMerger(MergeConfig(**config)).plan()
    (line,) = refused.value.lines()
    assert line.endswith(f" Give {where}.peft_config.base_model_path, or {where}.base_model.")
    for more in ({"base_model": str(bases.qwen2)}, {"peft_config": {"base_model_path": str(bases.qwen2)}}):
        given = {**inner, **more}
        within = {"merges": {"soup": given}} if named else {"models": [{"merge": given}]}
        ModelMerger(MergeConfig(**{**config, **within})).plan()


def test_adapters_are_not_folded_into_a_base_that_is_a_merge(
    bases: SimpleNamespace, three: list[Path], tmp_path: Path
) -> None:
    base = {"merge": {"strategy": "weighted", "models": [{"path": str(bases.qwen2)}]}}
    models = [{"path": str(three[0])}]
    config = {"strategy": "task_arithmetic", "models": models, "base_model": base, "output_path": str(tmp_path / "out")}
    merge(MergeConfig(**config))  # into the one that the adapter names
    alone = {"strategy": "weighted", "models": models, "output_path": str(tmp_path / "alone")}
    merge(MergeConfig(**alone))
    merged, folded = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "alone"))
    assert all(torch.equal(merged[name], folded[name]) for name in folded)
    section = {"base_model_path": str(bases.qwen2)}
    ModelMerger(MergeConfig(**{**config, "output_path": None}, peft_config=section)).plan()
