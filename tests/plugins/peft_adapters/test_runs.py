"""How merges of updates run: killed and resumed, in other slices and workers, in the memory that the plan says."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import directory_state
from core.test_light_imports import HEAVY, run
from faults.stopping import Steps, killed_merge, spread, staging_path
from inputs.watching import watched_reads
from modelmerger import MergeConfig, MergeError, ModelMerger, Watch, merge
from modelmerger.planning.cost import PROCESS_MEMORY
from plugins.peft_adapters.handmade import read_updates, write_adapter, write_base

SHAPES = {"model.layers.0.up": (130, 70), "model.layers.1.up": (64, 100), "model.layers.1.down": (70, 70)}


@pytest.fixture
def made(tmp_path: Path) -> SimpleNamespace:
    """Two adapters of a base, and `config(output, **options)` for a merge of their updates."""
    base = write_base(tmp_path / "base", SHAPES)
    adapters = [write_adapter(tmp_path / f"{seed}", base, SHAPES, seed, rank=seed + 2) for seed in (1, 2)]

    def config(output: str = "merged", **options: Any) -> dict[str, Any]:
        return {
            "strategy": "weighted",
            "models": [{"path": str(adapter.path)} for adapter in adapters],
            "output_path": str(tmp_path / output),
            "peft_config": {"merge_adapters": True},
            "options": options,
        }

    return SimpleNamespace(folder=tmp_path, base=base, adapters=adapters, config=config, output=tmp_path / "merged")


@pytest.mark.parametrize("options", [{}, {"preserve_base_model": False}], ids=["adapter", "model"])
def test_a_killed_merge_is_resumed_to_the_same_bytes(made: SimpleNamespace, options: dict[str, Any]) -> None:
    """A1, A7"""
    config = made.config(max_shard_size=30_000, low_memory_mode=True, **options)
    steps = Steps()
    merge(MergeConfig(**made.config("whole", **config["options"])), Watch(step=steps))
    whole = weights(made.folder / "whole")
    for at in spread(len(steps.seen), 8):
        assert killed_merge(config, at) == -signal.SIGKILL
        merge(MergeConfig(**config))
        assert weights(made.output) == whole, f"killed at step {at}, {steps.seen[at - 1]}"
        assert not staging_path(made.output).exists()
        for file in made.output.rglob("*"):
            file.unlink()
        made.output.rmdir()


def test_what_was_finished_before_a_kill_is_not_computed_again(made: SimpleNamespace) -> None:
    config = made.config(preserve_base_model=False, max_shard_size=30_000, low_memory_mode=True)
    steps = Steps()
    merge(MergeConfig(**made.config("whole", **config["options"])), Watch(step=steps))
    published = [name for name, _ in steps.seen].index("rename")
    assert killed_merge(config, published) == -signal.SIGKILL
    report = merge(MergeConfig(**config))
    assert report.bytes_reused == report.bytes_written > 0


@pytest.mark.parametrize("options", [{}, {"merge_method": "svd"}, {"preserve_base_model": False}], ids=str)
def test_slices_and_workers_change_no_bit(
    made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """C10"""
    found = []
    for workers, slice_elements in ((1, 1 << 14), (3, 1 << 19), (3, 333), (2, 1)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, workers=workers: set(range(workers)))
        monkeypatch.setattr("modelmerger.planning.cost.MOST_SLICE", slice_elements)
        monkeypatch.setattr("modelmerger.planning.cost.LEAST_SLICE", min(slice_elements, 333))
        output = f"{workers} {slice_elements}"
        merge(MergeConfig(**made.config(output, **options)))
        found.append(weights(made.folder / output))
    assert all(other == found[0] for other in found[1:])


PEAKS = """
import json, sys
from pathlib import Path
from modelmerger import MergeConfig, merge

def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])

first, second = json.load(sys.stdin)
merge(MergeConfig(**first))
before = peak()
merge(MergeConfig(**second))
print(before, peak())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_the_plan_says_the_memory(tmp_path: Path) -> None:
    """Of the factors, in float64; the full matrix never exists.

    Measured in a process of its own that has merged before.
    """
    shapes = {"model.layers.0.up": (3000, 3000)}
    base = write_base(tmp_path / "base", shapes)
    adapters = [write_adapter(tmp_path / f"{seed}", base, shapes, seed, rank=32).path for seed in (1, 2)]
    small = write_base(tmp_path / "small", SHAPES)
    warming = write_adapter(tmp_path / "warming", small, SHAPES, 1).path
    config = {
        "strategy": "weighted",
        "models": [{"path": str(path)} for path in adapters],
        "peft_config": {"merge_adapters": True},
        "options": {"low_memory_mode": True},
        "output_path": str(tmp_path / "merged"),
    }
    first = config | {"models": [{"path": str(warming)}], "output_path": str(tmp_path / "first")}
    planned = ModelMerger(MergeConfig(**config)).plan().memory
    factors, matrix = 8 * 2 * 32 * (3000 + 3000), 4 * 3000 * 3000
    assert factors < planned - PROCESS_MEMORY < matrix

    done = subprocess.check_output([sys.executable, "-c", PEAKS], input=json.dumps([first, config]), text=True)
    before, peak = map(int, done.split())
    assert 0 < peak - before < matrix
    if torch.version.cuda is None:  # other builds take more memory before they do anything
        assert peak <= planned


def weights(folder: Path) -> dict[str, bytes]:
    state = directory_state(folder)
    assert state is not None
    return {name: content for name, content in state.items() if name.endswith((".safetensors", "_config.json"))}


def test_numbers_are_right_in_all_of_this(made: SimpleNamespace) -> None:
    merge(MergeConfig(**made.config()))
    for module, found in read_updates(made.output).items():
        wanted = sum(adapter.updates[module] for adapter in made.adapters) / 2
        assert np.linalg.norm(found - wanted) < 1e-6 * np.linalg.norm(wanted)


def test_a_check_reads_no_factors(made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> None:
        raise AssertionError("weights are read")

    monkeypatch.setattr(os, "preadv", watched_reads(read))
    merger = ModelMerger(MergeConfig(**made.config()))

    assert [note.severity for note in merger.check_compatibility()] == ["note"]
    with pytest.raises(MergeError, match="weights are read"):
        merger.plan()


def test_a_check_of_adapters_imports_nothing_heavy(made: SimpleNamespace) -> None:
    """Whether they are merged or folded; nor does a plan that folds them."""
    file, folding = (str(made.folder / name) for name in ("merge.json", "folding.json"))
    Path(file).write_text(json.dumps(made.config()))
    Path(folding).write_text(json.dumps(made.config() | {"peft_config": {"merge_adapters": False}}))
    statuses, modules = run(["check", file], ["check", folding], ["plan", folding, "--no-trial"])
    assert statuses == [0, 0, 0]
    assert not modules & {*HEAVY, "rich"} - {"yaml.constructor"}
