"""Merges on a real Ray cluster of three nodes on this machine. Ray is not installed with the other tests: `make test-extras`."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import directory_state
from modelmerger import NumericError, PluginError, merge
from safetensors.torch import save_file

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.xdist_group("ray")]

HELD = '''
"""A mean that waits while a file `hold` is there, and whose process dies once where a file `die` is."""

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
    folder = Path(options.folder)
    (folder / f"at-{os.getpid()}").touch()
    if (folder / "die").exists():
        try:
            (folder / "die").unlink()
        except FileNotFoundError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    while (folder / "hold").exists():
        time.sleep(0.02)
    return (tensors[0] + tensors[1]) / 2
'''


def site(folder: Path, version: str) -> Path:
    """Where a distribution with that strategy looks installed."""
    info = folder / f"acme_held-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-held\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("[modelmerger.strategies]\nheld = acme_held\n")
    (folder / "acme_held.py").write_text(HELD)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Three nodes with a processor each, which `RAY_ADDRESS` leads to."""
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site(folder / "new", "1.1")))
        path = os.pathsep.join(filter(None, sys.path))
        patch.setenv("PYTHONPATH", path)
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
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
    """Two models of five blocks, a folder of `held`, and `told(strategy, executor)` for a merge of them."""
    generator = torch.Generator().manual_seed(5)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        tensors = {f"layers.{i}.w": torch.randn(4_100, 500, generator=generator) for i in range(9)}
        save_file(tensors, tmp_path / name / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "held").mkdir()

    def told(strategy: str, executor: str = "ray") -> dict[str, Any]:
        options = {"executor": executor, "check_loading": False}
        options |= {"folder": str(tmp_path / "held")} if strategy == "held" else {}
        models = [{"path": str(tmp_path / name)} for name in ("a", "b")]
        return {"strategy": strategy, "models": models, "output_path": str(tmp_path / "merged"), "options": options}

    def expected(strategy: str) -> Any:
        merge(told(strategy, "threads"))
        found = directory_state(tmp_path / "merged")
        shutil.rmtree(tmp_path / "merged")
        for path in (tmp_path / "held").iterdir():
            path.unlink()
        return found

    return SimpleNamespace(
        folder=tmp_path, held=tmp_path / "held", output=tmp_path / "merged", told=told, expected=expected
    )


def wait_until(holds: Callable[[], object]) -> None:
    until = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def started(large: SimpleNamespace, said: Path) -> "subprocess.Popen[bytes]":
    """The command line, in a process of its own, which merges until it is held."""
    (large.held / "hold").touch()
    path = large.folder / "config.json"
    path.write_text(json.dumps(large.told("held")))
    with said.open("wb") as err:
        process = subprocess.Popen([sys.executable, "-m", "modelmerger", "merge", str(path)], stderr=err)
    wait_until(lambda: list(large.held.glob("at-*")))
    return process


@pytest.mark.usefixtures("cluster")
def test_nodes_make_the_bytes_that_threads_make(large: SimpleNamespace) -> None:
    """C10"""
    expected = large.expected("slerp")
    merge(large.told("slerp"))
    assert directory_state(large.output) == expected


@pytest.mark.usefixtures("cluster")
def test_a_process_that_is_killed_is_started_again(large: SimpleNamespace) -> None:
    """A26"""
    expected = large.expected("held")
    (large.held / "die").touch()
    merge(large.told("held"))
    assert not (large.held / "die").exists()
    assert directory_state(large.output) == expected


@pytest.mark.usefixtures("cluster")
def test_what_a_node_fails_of_is_said_as_in_threads(large: SimpleNamespace) -> None:
    """C1, A26"""
    tensors = {f"layers.{i}.w": torch.zeros(4_100, 500) for i in range(9)}
    tensors["layers.7.w"][3, 4] = torch.nan
    save_file(tensors, large.folder / "b" / "model.safetensors", metadata={"format": "pt"})
    said = []
    for executor in ("threads", "ray"):
        with pytest.raises(NumericError) as refused:
            merge(large.told("weighted", executor))
        said.append(str(refused.value))
    assert said[0] == said[1]


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("cluster")
def test_an_interrupted_merge_ends_soon_and_nobody_writes_afterwards(
    large: SimpleNamespace, sent: int, status: int
) -> None:
    """A6, A26"""
    expected = large.expected("held")
    said = large.folder / "said"
    process = started(large, said)

    process.send_signal(sent)
    begun = time.monotonic()
    assert process.wait(60) == status

    assert time.monotonic() - begun < 30  # 5 s where nothing else runs
    assert re.fullmatch(r"(note: .*\n)?error: interrupted\..* run the same command again.*\n", said.read_text())
    workers = [int(path.name.removeprefix("at-")) for path in large.held.glob("at-*")]
    wait_until(lambda: not any(Path(f"/proc/{worker}/cwd").exists() for worker in workers))
    (large.held / "hold").unlink()
    merge(large.told("held"))
    assert directory_state(large.output) == expected


def test_a_node_with_another_version_of_a_plugin_is_refused_by_name(cluster: Any, large: SimpleNamespace) -> None:
    """A25, A26"""
    node = cluster.add_node(num_cpus=1, node_name="old-node", env_vars={"PYTHONPATH": cluster.old})
    try:
        with pytest.raises(PluginError) as refused:
            merge(large.told("held"))
    finally:
        cluster.remove_node(node)
    due = "node 'old-node': strategy 'held' from acme-held 1.1 here, 1.0 there. Install the same there."
    assert str(refused.value) == due
    assert not large.output.exists()


@pytest.mark.long
def test_what_a_node_that_is_killed_had_to_do_others_do(cluster: Any, large: SimpleNamespace) -> None:
    """A26"""
    expected = large.expected("held")
    (large.held / "hold").touch()
    node = cluster.add_node(num_cpus=1, node_name="node4")

    def kill() -> None:
        wait_until(lambda: len(list(large.held.glob("at-*"))) >= 4)
        cluster.remove_node(node, allow_graceful=False)
        (large.held / "hold").unlink()

    killing = threading.Thread(target=kill)
    killing.start()
    merge(large.told("held"))
    killing.join()
    assert directory_state(large.output) == expected


@pytest.mark.long
@pytest.mark.usefixtures("cluster")
def test_a_merge_whose_driver_was_killed_is_gone_on_with(large: SimpleNamespace) -> None:
    """A7, A26"""
    expected = large.expected("held")
    process = started(large, large.folder / "said")
    (large.held / "hold").unlink()
    journal = large.folder / ".merged.modelmerger" / "journal"
    wait_until(lambda: process.poll() is not None or journal.read_bytes().count(b"\n") > 1)
    process.kill()
    process.wait(60)
    if not large.output.exists():  # else it was quicker
        merge(large.told("held"))
    assert directory_state(large.output) == expected


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounts need root, and unshare")
def test_a_node_that_does_not_see_the_inputs_is_refused_by_name(cluster: Any, large: SimpleNamespace) -> None:
    """A25, A26: a node in a mount namespace of its own."""
    script = shutil.which("ray") or str(Path(sys.executable).with_name("ray"))
    hidden = large.folder / "b"
    start = f"mount -t tmpfs none {hidden} && {script} start --address={cluster.address} --num-cpus=1 --node-name=blind"
    node = subprocess.Popen(["unshare", "-m", "sh", "-c", f"{start} --block"], stdout=subprocess.DEVNULL)
    try:
        ray.init(cluster.address, log_to_driver=False)
        wait_until(lambda: any(one["NodeName"] == "blind" and one["Alive"] for one in ray.nodes()))
        with pytest.raises(
            Exception, match=r"b/model.safetensors: is not seen on node 'blind': No such file"
        ) as refused:
            merge(large.told("weighted"))
        assert refused.value.exit_status == 3  # type: ignore[attr-defined]  # of every error of ours
    finally:
        ray.shutdown()
        node.terminate()
        node.wait(60)
    assert not large.output.exists()


def test_without_an_address_it_has_a_cluster_of_its_own(
    cluster: Any, large: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And joins none that runs on this machine."""
    monkeypatch.delenv("RAY_ADDRESS")
    joined: list[str] = []
    init = ray.init

    def watched(address: str, **told: Any) -> Any:
        found = init(address, num_cpus=1, **told)
        joined.append(found.address_info["gcs_address"])
        return found

    monkeypatch.setattr(ray, "init", watched)
    expected = large.expected("weighted")
    merge(large.told("weighted"))
    assert directory_state(large.output) == expected
    assert joined != [cluster.address]
