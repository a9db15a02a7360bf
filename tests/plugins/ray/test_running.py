"""Merges on Ray that are interrupted, and the cluster that a merge has where no address is given."""

import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import directory_state
from modelmerger import PluginError, merge
from modelmerger_plugins.ray import RECORDS

from tests.plugins.ray.holding import PATIENCE, begun, has_children, started, wait_until, workers

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")


SAID = r"((note|warning): .*\n)*error: interrupted\..* run the same command again.*\n"


def interrupted(large: SimpleNamespace, sent: int, *, joins: bool) -> int:
    """Ends a merge by a signal to its whole group, as a terminal does. Returns its exit status."""
    expected = large.expected("held")
    said, staged = large.folder / "said", large.folder / ".merged.modelmerger" / "model"
    process = started(large, said, joins=joins)

    os.killpg(process.pid, sent)
    status = process.wait(PATIENCE)

    assert re.fullmatch(SAID, said.read_text())
    wait_until(lambda: not any(Path(f"/proc/{worker}/cwd").exists() for worker in workers(large)))
    left = directory_state(staged)
    (large.held / "hold").unlink()
    assert directory_state(staged) == left  # nobody is left who only waited
    merge(large.told("held"))
    assert directory_state(large.output) == expected
    return status


@pytest.mark.parametrize("joins", [True, False], ids=["joined", "own cluster"])
@pytest.mark.usefixtures("cluster", "interruptible")
def test_ctrl_c_ends_a_merge_and_its_workers(large: SimpleNamespace, joins: bool) -> None:
    """A32, A6"""
    assert interrupted(large, signal.SIGINT, joins=joins) == 130


@pytest.mark.parametrize("joins", [True, False], ids=["joined", "own cluster"])
@pytest.mark.usefixtures("cluster", "interruptible")
def test_sigterm_ends_a_merge_and_its_workers(large: SimpleNamespace, joins: bool) -> None:
    """A33, A6"""
    assert interrupted(large, signal.SIGTERM, joins=joins) == 143


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("cluster", "interruptible")
def test_a_signal_that_comes_while_ray_starts_ends_that_too(large: SimpleNamespace, sent: int, status: int) -> None:
    """A32, A33"""
    said = large.folder / "said"
    process = begun(large, said, joins=False)
    wait_until(lambda: has_children(process.pid) or process.poll() is not None)

    process.send_signal(sent)

    assert process.wait(PATIENCE) == status
    assert re.fullmatch(SAID, said.read_text())
    assert workers(large) == []


def test_ray_keeps_no_records_that_wait_for_a_cluster_that_has_ended(
    large: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A33: by them a merge with a cluster of its own took 9 s to end by a SIGTERM to all its processes."""
    import ray

    monkeypatch.delenv(RECORDS, raising=False)
    kept: list[str | None] = []

    def init(*_: object, **__: object) -> None:
        kept.append(os.environ.get(RECORDS))
        raise PluginError("no cluster")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(PluginError, match="no cluster"):
        merge(large.told("weighted"))
    assert kept == ["0"]


def ancestors(process: int) -> list[int]:
    """Its parent, the parent of that, and so on."""
    found = []
    while process > 1:
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(process)
    return found


@pytest.mark.usefixtures("cluster")
def test_without_an_address_it_has_a_cluster_of_its_own(large: SimpleNamespace) -> None:
    """And joins none that runs on this machine."""
    expected = large.expected("held")
    process = started(large, large.folder / "said", joins=False)
    assert all(process.pid in ancestors(worker) for worker in workers(large))
    (large.held / "hold").unlink()
    assert process.wait(PATIENCE) == 0
    assert directory_state(large.output) == expected
