"""A Ray cluster of three nodes on this machine, with strategies that a third party has installed there."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import directory_state
from modelmerger import merge
from safetensors.torch import save_file

HELD = '''
"""A mean whose workers wait while a file `hold` is there, those aside that a file `go-PID` lets go; and whose process
dies once where a file `die` is, and always where a file `die-always` is.
"""

import os, signal, time
from pathlib import Path
from attrs import frozen
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, 2))

@frozen
class Options:
    folder: str

@hookimpl
def merge_tensor(tensors, options):
    folder, process = Path(options.folder), os.getpid()
    (folder / f"at-{process}").touch()
    if (folder / "die-always").exists():
        os.kill(process, signal.SIGKILL)
    if (folder / "die").exists():
        try:
            (folder / "die").unlink()
        except FileNotFoundError:
            pass
        else:
            os.kill(process, signal.SIGKILL)
    while (folder / "hold").exists() and not (folder / f"go-{process}").exists():
        time.sleep(0.02)
    return (tensors[0] + tensors[1]) / 2
'''
ROUNDS = '''
"""What each model adds to the sum is as large as a mean that is measured in two rounds."""

import math
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, None), rounds=2)

@hookimpl
def measure_tensor(tensors, round, measurements, shape):
    if round == 0:
        return torch.stack([tensor.double().abs().sum() for tensor in tensors])
    means = measurements[0] / math.prod(shape)
    return torch.stack([(tensor.double().abs() > mean).sum() for tensor, mean in zip(tensors, means)])

@hookimpl
def merge_tensor(tensors, measurements):
    shares = measurements[0] * measurements[1] + 1
    return sum(tensor * share for tensor, share in zip(tensors, (shares / shares.sum()).tolist()))
'''


def site(folder: Path, version: str) -> Path:
    """Where a distribution with these strategies looks installed."""
    info = folder / f"acme_held-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-held\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("[modelmerger.strategies]\nheld = acme_held\nrounds = acme_rounds\n")
    (folder / "acme_held.py").write_text(HELD)
    (folder / "acme_rounds.py").write_text(ROUNDS)
    return folder


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Three nodes with a processor each, which `RAY_ADDRESS` leads to."""
    import ray
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site(folder / "new", "1.1")))
        path = os.pathsep.join(filter(None, sys.path))
        patch.setenv("PYTHONPATH", path)
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # or it kills workers where others fill the memory
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        for number in (2, 3):
            nodes.add_node(num_cpus=1, node_name=f"node{number}", wait=False)
        nodes.wait_for_nodes()
        patch.setenv("RAY_ADDRESS", nodes.address)
        nodes.old = str(site(folder / "old", "1.0")) + os.pathsep + path
        yield nodes
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture
def large(tmp_path: Path) -> SimpleNamespace:
    """Two models of five blocks, a folder of `held`, `told(strategy, executor)` for a merge of them, and
    `expected(strategy)`: what threads make.
    """
    generator = torch.Generator().manual_seed(5)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        tensors = {f"layers.{i}.w.weight": torch.randn(4_100, 500, generator=generator) for i in range(9)}
        save_file(tensors, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    held = tmp_path / "held"
    held.mkdir()

    def told(strategy: str, executor: str = "ray") -> dict[str, Any]:
        options = {"executor": executor, "check_loading": False}
        options |= {"folder": str(held)} if strategy == "held" else {}
        models = [{"path": str(tmp_path / name)} for name in ("a", "b")]
        return {"strategy": strategy, "models": models, "output_path": str(tmp_path / "merged"), "options": options}

    def expected(strategy: str) -> Any:
        merge(told(strategy, "threads"))
        found = directory_state(tmp_path / "merged")
        shutil.rmtree(tmp_path / "merged")
        for path in held.iterdir():
            path.unlink()
        return found

    return SimpleNamespace(folder=tmp_path, held=held, output=tmp_path / "merged", told=told, expected=expected)
