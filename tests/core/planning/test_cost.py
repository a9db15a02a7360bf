"""The memory that a plan says, beside what the system says of a process that merges so."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import random_tensors, write_model
from modelmerger.planning.cost import PROCESS_MEMORY

from tests.core.plugging import install

MODELS = 8
SLACK = 8 << 20
"""By so much the peak before differs from process to process: imports leave garbage, which goes when it happens to."""
SUM = """
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, None), granularity={granularity!r})

@hookimpl
def merge_tensor(tensors):
    total = tensors[0].clone()
    for tensor in tensors[1:]:
        total += tensor
    return total
"""
MEASURE = """
import json, sys
from pathlib import Path
from modelmerger import MergeConfig, ModelMerger, merge

def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])

small, large = (MergeConfig(**config) for config in json.loads(sys.argv[1]))
merge(small)
before = peak()
planned = ModelMerger(large).plan().memory
merge(large)
print(json.dumps([before, peak(), planned]))
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight small models and eight of 16.8 MB, each of them one matrix and more than a block."""
    folder = tmp_path_factory.mktemp("sources")
    for number in range(MODELS):
        write_model(folder / f"small {number}", random_tensors(number))
        write_model(folder / f"large {number}", random_tensors(number, shapes={"matrix": (4200, 2000)}))
    return folder


@pytest.mark.parametrize("granularity", ["elementwise", "rowwise", "whole"])
def test_a_merge_of_eight_models_by_a_strategy_of_its_own_stays_within_its_plan(
    granularity: str, sources: Path, distribution: Callable[..., Path], tmp_path: Path
) -> None:
    """With one worker and the smallest slices, in a process that has merged before, so that all it needs is imported."""
    install(distribution, [("strategy", "total", SUM.format(granularity=granularity))])
    configs = [
        {
            "strategy": "total",
            "models": [{"path": str(sources / f"{kind} {number}")} for number in range(MODELS)],
            "output_path": str(tmp_path / kind),
            "options": {"low_memory_mode": True},
        }
        for kind in ("small", "large")
    ]
    path = [str(tmp_path / "site-acme-merge"), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(configs)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)}, stdout=subprocess.PIPE, text=True, timeout=120, check=True,
    )  # fmt: skip
    before, peak, planned = json.loads(done.stdout)

    assert peak - before <= planned - PROCESS_MEMORY + SLACK
    assert planned <= 2 * peak
    if torch.version.cuda is None:  # other builds take more memory before they do anything
        assert peak <= planned
