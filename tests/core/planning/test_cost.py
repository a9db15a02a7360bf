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
GRANULARITIES = ("elementwise", "rowwise", "whole")
MEASURE = """
import json, os, sys
from pathlib import Path
from modelmerger import MergeConfig, ModelMerger, merge
import modelmerger.run, torch

def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])

for configs in json.loads(sys.argv[1]):
    if os.fork() == 0:  # a process of its own, which has imported what it needs
        small, large = (MergeConfig(**config) for config in configs)
        merge(small)
        before = peak()
        planned = ModelMerger(large).plan().memory
        merge(large)
        print(json.dumps([before, peak(), planned]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight small models and eight of 16.8 MB, each of them one matrix and more than a block."""
    folder = tmp_path_factory.mktemp("sources")
    for number in range(MODELS):
        write_model(folder / f"small {number}", random_tensors(number))
        write_model(folder / f"large {number}", random_tensors(number, shapes={"matrix": (4200, 2000)}))
    return folder


def test_merges_of_eight_models_by_strategies_of_their_own_stay_within_their_plans(
    sources: Path, distribution: Callable[..., Path], tmp_path: Path
) -> None:
    """With one worker and the smallest slices, in processes that have merged before, so that all they need is there."""
    install(distribution, [("strategy", name, SUM.format(granularity=name)) for name in GRANULARITIES])
    configs = [
        [
            {
                "strategy": name,
                "models": [{"path": str(sources / f"{kind} {number}")} for number in range(MODELS)],
                "output_path": str(tmp_path / f"{kind} {name}"),
                "options": {"low_memory_mode": True},
            }
            for kind in ("small", "large")
        ]
        for name in GRANULARITIES
    ]
    path = [str(tmp_path / "site-acme-merge"), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(configs)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)}, stdout=subprocess.PIPE, text=True, timeout=120, check=True,
    )  # fmt: skip
    for name, line in zip(GRANULARITIES, done.stdout.splitlines(), strict=True):
        before, peak, planned = json.loads(line)
        assert peak - before <= planned - PROCESS_MEMORY + SLACK, name
        assert planned <= 2 * peak, name
        if torch.version.cuda is None:  # other builds take more memory before they do anything
            assert peak <= planned, name
