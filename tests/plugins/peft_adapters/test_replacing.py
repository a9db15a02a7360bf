"""Tensors and rows that adapters replace, merged into an adapter: base + Σ c·(model − base), however they are cut."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import modelmerger
import numpy as np
import pytest
from modelmerger_plugins.peft_adapters.merging import replacing
from plugins.peft_adapters.handmade import PREFIX
from safetensors.numpy import load_file, save_file

Array = np.ndarray[Any, np.dtype[Any]]
ROWS = 65
INDICES = ([64, 0, 7], [7, 63])
"""The rows that each of two adapters replaces, in its own order."""
UNION = [0, 7, 63, 64]
CHANGED = {"head.weight": slice(None), "embed.weight": UNION}


def written(folder: Path, width: int) -> tuple[list[Path], dict[str, Array], list[dict[str, Array]]]:
    """Two adapters, the tensors of their base, and those of each model."""
    random = np.random.default_rng(width)
    base = {"head.weight": random.normal(size=(ROWS, width)), "embed.weight": random.normal(size=(ROWS, width))}
    save(folder / "base", "model.safetensors", base)
    (folder / "base/config.json").write_text("{}")
    paths, models = [], []
    for number, indices in enumerate(INDICES):
        head, rows = random.normal(size=(ROWS, width)), random.normal(size=(len(indices), width))
        path = folder / str(number)
        tensors = {"head.modules_to_save.weight": head, "embed.token_adapter.trainable_tokens_delta": rows}
        save(path, "adapter_model.safetensors", {PREFIX + key: values for key, values in tensors.items()})
        config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "trainable_token_indices": indices}
        config |= {"base_model_name_or_path": str(folder / "base"), "modules_to_save": ["head"]}
        (path / "adapter_config.json").write_text(json.dumps(config))
        embed = base["embed.weight"].copy()
        embed[indices] = rows
        paths.append(path)
        models.append({"head.weight": head, "embed.weight": embed})
    return paths, base, models


def save(folder: Path, file: str, tensors: Mapping[str, Array]) -> None:
    folder.mkdir()
    save_file(dict(tensors), folder / file, metadata={"format": "pt"})


def merge(folder: Path, adapters: list[Path], weight: float = 1.0, **config: Any) -> modelmerger.MergeReport:
    models = [{"path": str(path), "weight": weight} for path in adapters]
    peft = {"merge_adapters": True}
    return modelmerger.merge(
        modelmerger.MergeConfig(models=models, output_path=str(folder / "merged"), peft_config=peft, **config)
    )


def merged_in(folder: Path) -> dict[str, Array]:
    """The tensors of the merged adapter, by those of the base."""
    tensors = load_file(folder / "merged/adapter_model.safetensors")
    assert json.loads((folder / "merged/adapter_config.json").read_text())["trainable_token_indices"] == UNION
    rows = f"{PREFIX}embed.token_adapter.trainable_tokens_delta"
    return {"head.weight": tensors[f"{PREFIX}head.weight"], "embed.weight": tensors[rows]}


def interpolated(base: Array, models: list[Array], shares: list[float]) -> Array:
    total: Array = base + sum(share * (model - base) for share, model in zip(shares, models, strict=True))
    return total


@pytest.mark.parametrize("slice_elements", [1, 7, 333, 1 << 19])
@pytest.mark.parametrize("width", [1, 7, 65])
def test_whole_tensors_and_rows_are_interpolated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, slice_elements: int
) -> None:
    monkeypatch.setattr("modelmerger.planning.cost.MOST_SLICE", 0)
    monkeypatch.setattr("modelmerger.planning.cost.LEAST_SLICE", slice_elements)
    paths, base, models = written(tmp_path, width)
    options = {"normalize_weights": False, "torch_dtype": "float64"}
    merge(tmp_path, paths, 0.25, strategy="weighted", options=options)
    found = merged_in(tmp_path)
    for name, rows in CHANGED.items():
        wanted = interpolated(base[name], [model[name] for model in models], [0.25, 0.25])[rows]
        assert found[name].shape == wanted.shape
        assert np.abs(found[name] - wanted).max() <= 1e-14


@pytest.mark.parametrize("scanned", [13, 1 << 18])
def test_what_rounding_loses_is_reported_of_all_elements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scanned: int
) -> None:
    monkeypatch.setattr(replacing, "SCANNED", scanned)
    paths, base, models = written(tmp_path, 7)
    report = merge(tmp_path, paths, strategy="weighted", options={"torch_dtype": "float16"})
    found = merged_in(tmp_path)
    for name, rows in CHANGED.items():
        wanted = interpolated(base[name], [model[name] for model in models], [0.5, 0.5])
        error = np.linalg.norm(found[name].astype(np.float64) - wanted[rows]) / np.linalg.norm(wanted - base[name])
        assert report.observed[name]["relative error"] == pytest.approx(error, rel=1e-9)
        assert error > 1e-5


@pytest.mark.parametrize("scanned", [13, 1 << 18])
def test_slerp_has_the_angle_between_all_elements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scanned: int
) -> None:
    monkeypatch.setattr(replacing, "SCANNED", scanned)
    paths, base, models = written(tmp_path, 7)
    options = {"interpolation_factor": 0.25, "normalize_before_slerp": False, "torch_dtype": "float64"}
    merge(tmp_path, paths, strategy="slerp", options=options)
    found = merged_in(tmp_path)
    for name, rows in CHANGED.items():
        ours, theirs = (model[name] - base[name] for model in models)
        angle = np.arccos(np.vdot(ours, theirs) / (np.linalg.norm(ours) * np.linalg.norm(theirs)))
        shares = [float(np.sin(part * angle) / np.sin(angle)) for part in (0.75, 0.25)]
        wanted = interpolated(base[name], [model[name] for model in models], shares)[rows]
        assert np.abs(found[name] - wanted).max() <= 1e-13
