"""What fails of a merge on a real Ray cluster: processes, nodes, the driver, inputs and plugins."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import directory_state
from modelmerger import InputError, NumericError, PluginError, merge
from modelmerger.output.journal import read_journal
from safetensors.torch import save_file

from tests.plugins.ray.holding import PATIENCE, started, wait_until, workers

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.usefixtures("cluster")
def test_a_process_that_is_killed_is_started_again(large: SimpleNamespace) -> None:
    """A26"""
    expected = large.expected("held")
    (large.held / "die").touch()
    merge(large.told("held"))
    assert not (large.held / "die").exists()
    assert len(workers(large)) >= 3
    assert directory_state(large.output) == expected


@pytest.mark.usefixtures("cluster")
def test_processes_that_always_die_are_given_up(large: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A26"""
    monkeypatch.setattr("modelmerger_plugins.ray.STARTS", 1)
    (large.held / "die-always").touch()
    with pytest.raises(PluginError, match=r"^executor 'ray': no node of the cluster is left") as refused:
        merge(large.told("held"))
    assert len(str(refused.value)) <= 300
    assert not large.output.exists()


def test_what_a_node_that_is_killed_had_to_do_others_do(cluster: Any, large: SimpleNamespace) -> None:
    """A27"""
    expected = large.expected("held")
    (large.held / "hold").touch()
    node = cluster.add_node(num_cpus=1, node_name="node4")

    def kill() -> None:
        wait_until(lambda: len(workers(large)) >= 4)
        cluster.remove_node(node, allow_graceful=False)
        (large.held / "hold").unlink()

    killing = threading.Thread(target=kill)
    killing.start()
    merge(large.told("held"))
    killing.join()
    assert directory_state(large.output) == expected


@pytest.mark.usefixtures("cluster")
def test_a_merge_whose_driver_was_killed_is_gone_on_with(large: SimpleNamespace) -> None:
    """A28, A7"""
    expected = large.expected("held")
    process = started(large, large.folder / "said")
    (large.held / f"go-{workers(large)[0]}").touch()  # of three that have work, one gets something done
    staged = large.folder / ".merged.modelmerger"
    wait_until(lambda: (staged / "journal").read_bytes().count(b"\n") > 1)
    process.kill()
    process.wait(PATIENCE)
    descriptor = os.open(staged, os.O_RDONLY)
    journal = read_journal(descriptor)
    os.close(descriptor)
    assert journal is not None
    done = sum(piece.length for record in journal.records.values() for piece in record.pieces)
    (large.held / "hold").unlink()

    report = merge(large.told("held"))

    assert 0 < done <= report.bytes_reused < report.bytes_written
    assert directory_state(large.output) == expected


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="mounts need root, and unshare")
def test_a_node_that_does_not_see_the_inputs_is_refused_by_name(cluster: Any, large: SimpleNamespace) -> None:
    """A29, A25: a node in a mount namespace of its own."""
    hidden = large.folder / "b"
    script = Path(sys.executable).with_name("ray")
    start = f"exec {script} start --address={cluster.address} --num-cpus=1 --node-name=blind --block"
    command = ["unshare", "-m", "sh", "-c", f"mount -t tmpfs none {hidden} && {start}"]
    node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def is_up() -> bool:
        return any(one["NodeName"] == "blind" and one["Alive"] for one in ray.nodes())

    ray.init(cluster.address, log_to_driver=False)
    try:
        wait_until(is_up)
        with pytest.raises(InputError, match=r"b/model.safetensors: is not seen on node 'blind': No such file") as no:
            merge(large.told("held"))
    finally:
        node.terminate()
        node.wait(PATIENCE)
        wait_until(lambda: not is_up())
        ray.shutdown()
    assert no.value.exit_status == 3
    assert workers(large) == []  # not a slice was merged
    assert not large.output.exists()


def test_a_node_with_another_version_of_a_plugin_is_refused_by_name(cluster: Any, large: SimpleNamespace) -> None:
    """A30, A25"""
    node = cluster.add_node(num_cpus=1, node_name="old-node", env_vars={"PYTHONPATH": cluster.old})
    try:
        with pytest.raises(PluginError) as refused:
            merge(large.told("held"))
    finally:
        cluster.remove_node(node)
    due = "node 'old-node': strategy 'held' from acme-held 1.1 here, 1.0 there. Install the same there."
    assert str(refused.value) == due
    assert workers(large) == []  # not a slice was merged
    assert not large.output.exists()


@pytest.mark.usefixtures("cluster")
def test_what_is_not_finite_is_said_as_in_threads(large: SimpleNamespace) -> None:
    """A31, C1"""
    tensors = {f"layers.{i}.w.weight": torch.zeros(4_100, 500) for i in range(9)}
    tensors["layers.7.w.weight"][3, 4] = torch.nan
    save_file(tensors, large.folder / "b" / "model.safetensors", metadata={"format": "pt"})
    said = []
    for executor in ("threads", "ray"):
        with pytest.raises(NumericError, match=r"layers.7.w.*'b' holds 1 NaN") as refused:
            merge(large.told("weighted", executor))
        said.append((str(refused.value), refused.value.exit_status))
    assert said[0] == said[1]
    assert said[0][1] == 5
