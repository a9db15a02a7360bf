"""The rank of a merged adapter: its update's own, or a given one with the least error, or PEFT's."""

import json
import math
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from plugins.peft_adapters.tiny_adapters import load_base, make_adapter
from plugins.peft_adapters.updates import combined, deltas, distance, merge


@pytest.mark.parametrize("rank", [1, 4, 6])
def test_svd_is_the_best_approximation_of_its_rank(
    bases: SimpleNamespace, three: list[Path], tmp_path: Path, rank: int
) -> None:
    """Eckart and Young, against the singular values of the full matrices; the report says what is missing."""
    report = merge(tmp_path / "merged", three, options={"merge_method": "svd", "rank": rank})
    wanted = combined([deltas(bases.qwen2, path) for path in three], [1 / 3] * 3)
    found = deltas(bases.qwen2, tmp_path / "merged")
    missing = 0.0
    for name, exact in wanted.items():
        values = torch.linalg.svdvals(exact.reshape(exact.shape[0], -1))
        least = float(values[rank:].norm())
        assert float((found[name] - exact).norm()) == pytest.approx(least, rel=1e-4, abs=1e-6 * float(exact.norm()))
        if exact.norm():
            error = report.observed[name]["relative error"]
            assert error == pytest.approx(least / float(exact.norm()), rel=1e-4, abs=1e-6)
        missing += least**2
    overall = math.sqrt(missing / sum(float(exact.norm()) ** 2 for exact in wanted.values()))
    assert report.relative_error == pytest.approx(overall, rel=1e-4)
    warned = [note for note in report.notes if note.severity == "warning" and "more than 10 %" in note.message]
    assert bool(warned) == (overall > 0.1)


def test_the_rank_of_svd_is_the_largest_unless_given(bases: SimpleNamespace, tmp_path: Path) -> None:
    adapters = [make_adapter(tmp_path / f"{rank}", bases.qwen2, rank, r=rank) for rank in (2, 5)]
    merge(tmp_path / "merged", adapters, options={"merge_method": "svd"})
    config = json.loads((tmp_path / "merged" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (5, 5, {})


@pytest.mark.parametrize("weights", [[0.7, 0.3], [1.5, -0.5]])
def test_peft_linear_is_what_peft_makes(bases: SimpleNamespace, tmp_path: Path, weights: list[float]) -> None:
    from peft import PeftModel

    adapters = [make_adapter(tmp_path / f"{seed}", bases.qwen2, seed, lora_alpha=seed) for seed in (1, 2)]
    report = merge(tmp_path / "merged", adapters, weights, options={"merge_method": "peft_linear"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(load_base(bases.qwen2), adapters[0], adapter_name="first")
        model.load_adapter(adapters[1], adapter_name="second")
        model.add_weighted_adapter(["first", "second"], weights, "sum", combination_type="linear")
        model.save_pretrained(tmp_path / "by peft", selected_adapters=["sum"])
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), deltas(bases.qwen2, tmp_path / "by peft" / "sum")) < 1e-5
    exact = combined([deltas(bases.qwen2, path) for path in adapters], weights)
    found = deltas(bases.qwen2, tmp_path / "merged")
    error = math.sqrt(
        sum(float((found[n] - exact[n]).norm() ** 2) for n in exact) / sum(float(exact[n].norm() ** 2) for n in exact)
    )
    assert report.relative_error == pytest.approx(error, rel=1e-4)
    assert error > 0.1
    assert any("more than 10 %" in note.message for note in report.notes)


def test_redundant_directions_are_removed(bases: SimpleNamespace, three: list[Path], tmp_path: Path) -> None:
    """An adapter merged with itself keeps its rank, and with what it becomes when half of it is taken away."""
    shutil.copytree(three[0], tmp_path / "copy")
    merge(tmp_path / "merged", [three[0], tmp_path / "copy"], [2, -0.5], options={"normalize_weights": False})
    assert json.loads((tmp_path / "merged" / "adapter_config.json").read_text())["r"] == 4
    wanted = combined([deltas(bases.qwen2, three[0])], [1.5])
    assert distance(deltas(bases.qwen2, tmp_path / "merged"), wanted) < 1e-6


def test_updates_that_cancel_leave_an_adapter_of_zeros(
    bases: SimpleNamespace, three: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(three[0], tmp_path / "copy")
    report = merge(tmp_path / "merged", [three[0], tmp_path / "copy"], [1, -1], options={"normalize_weights": False})
    assert all(tensor.norm() == 0 for tensor in deltas(bases.qwen2, tmp_path / "merged").values())
    assert report.relative_error == 0
