"""Merges on a real Ray cluster of three nodes on this machine make what threads make: weights and manifest."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import directory_state
from modelmerger import merge, verify
from safetensors.torch import load_file, save_file

from tests.plugins.ray.holding import workers

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("cluster")]


def both(large: SimpleNamespace, **changed: Any) -> list[Any]:
    """What threads and what Ray makes of a merge, byte by byte."""
    found = []
    for executor in ("threads", "ray"):
        told = large.told("weighted", executor)
        options = {**told["options"], **changed.get("options", {})}
        merge({**told, **changed, "options": options})
        verify(large.output)
        found.append(directory_state(large.output))
        large.output.rename(large.folder / f"by {executor}")
    return found


def write_adapter(base: Path, folder: Path) -> dict[str, torch.Tensor]:
    """A LoRA of two tensors of a model. Returns what it adds to each."""
    folder.mkdir()
    told = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["w"], "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**told, "base_model_name_or_path": str(base)}))
    generator = torch.Generator().manual_seed(9)
    factors, added = {}, {}
    for layer in ("layers.0.w", "layers.7.w"):
        a, b = (torch.randn(shape, generator=generator) for shape in ((2, 500), (4_100, 2)))
        factors |= {f"base_model.model.{layer}.lora_A.weight": a, f"base_model.model.{layer}.lora_B.weight": b}
        added[f"{layer}.weight"] = 4 / 2 * (b.double() @ a.double())
    save_file(factors, folder / "adapter_model.safetensors")
    return added


@pytest.mark.parametrize("strategy", ["weighted", "slerp", "rounds"])
def test_nodes_make_the_bytes_that_threads_make(large: SimpleNamespace, strategy: str) -> None:
    """C10: with what is measured of whole tensors, by a third party's strategy too."""
    by_threads, by_ray = both(large, strategy=strategy)
    assert by_ray == by_threads


def test_magnitudes_that_are_kept_are_found_in_other_processes(large: SimpleNamespace) -> None:
    """C10: by a sample that is read in ranges, and thresholds."""
    by_threads, by_ray = both(large, strategy="ties", base_model=str(large.folder / "a"))
    assert by_ray == by_threads


def test_an_adapter_is_folded_in_other_processes(large: SimpleNamespace) -> None:
    """C10"""
    a, b, adapter = (large.folder / name for name in ("a", "b", "adapter"))
    added = write_adapter(a, adapter)
    by_threads, by_ray = both(large, models=[{"path": str(adapter)}, {"path": str(b)}])
    assert by_ray == by_threads
    merged, ours, theirs = (load_file(folder / "model.safetensors") for folder in (large.folder / "by ray", a, b))
    for name, change in added.items():
        due = (ours[name].double() + change + theirs[name].double()) / 2
        torch.testing.assert_close(merged[name].double(), due, rtol=1e-5, atol=1e-5)


def test_what_is_observed_of_slices_is_added_up(large: SimpleNamespace) -> None:
    """C10"""
    base = str(large.folder / "a")
    by_threads, by_ray = both(large, strategy="task_arithmetic", base_model=base, options={"geometry": True})
    assert by_ray == by_threads
    observed = json.loads(by_ray["modelmerger.json"])["observed"]
    assert observed.keys() == {f"layers.{layer}.w.weight" for layer in range(9)}


def test_all_nodes_take_part(large: SimpleNamespace) -> None:
    merge(large.told("held"))
    assert len(workers(large)) == 3
