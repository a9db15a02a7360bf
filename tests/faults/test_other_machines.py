"""What is promised of workers in other processes: their blocks are on the storage, and come to where the merge reads."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from modelmerger import (
    InputError,
    MergeError,
    OutputError,
    PluginError,
    merge,
    open_worker,
    verify,
)

from tests.core.plugging import install

KEEPS_ITS_PROCESSES = """
import contextlib, multiprocessing
from modelmerger import WorkOrder, hookimpl, open_worker

old = []
said = []

def serve(connection):
    worker = None
    with contextlib.suppress(EOFError):
        while True:
            given = connection.recv()
            try:
                if isinstance(given, str):
                    worker = open_worker(WorkOrder.from_json(given))
                    connection.send(None)
                else:
                    connection.send(worker.do(given))
            except Exception as error:
                connection.send(error)

def started(order):
    context, found = multiprocessing.get_context("fork"), []
    for _ in range(2):
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        ours.send(order)
        assert ours.recv() is None
        found.append(ours)
    return found

@hookimpl
def run_slices(work):
    if not old:
        for connection in started(work.order().to_json()):
            task = work.take(0)
            connection.send(task)
            old.append((connection, task, connection.recv()))
        raise OSError("the cluster is gone")
    for connection, task, done in old:
        work.done(done)
        connection.send(task)
        said.append(connection.recv())
        connection.close()
    (mine, other) = started(work.order().to_json())
    while task := work.take(0):
        mine.send(task)
        work.done(mine.recv())
    mine.close()
    other.close()
    return True
"""


@pytest.fixture
def told(models: SimpleNamespace) -> dict[str, Any]:
    return {
        "strategy": "weighted",
        "models": [{"path": str(models.a)}, {"path": str(models.b)}],
        "output_path": str(models.output),
        "options": {"max_shard_size": 2_000},
    }


def executing(told: dict[str, Any], name: str) -> dict[str, Any]:
    return {**told, "options": {**told["options"], "executor": name}}


def test_processes_that_outlive_their_run_cannot_touch_the_next(
    told: dict[str, Any], models: SimpleNamespace, distribution: Callable[..., Path]
) -> None:
    (module,) = install(distribution, [("executor", "keeps", KEEPS_ITS_PROCESSES)], "acme-keeps")
    with pytest.raises(PluginError, match="the cluster is gone"):
        merge(executing(told, "keeps"))

    report = merge(executing(told, "keeps"))

    said = sys.modules[module].said
    assert [type(one) for one in said] == [OutputError, OutputError]
    assert all("is not of this run any more" in str(one) for one in said)
    assert report.bytes_reused == 0
    verify(models.output)


WRITES_ELSEWHERE = """
from attrs import evolve
from modelmerger import WorkOrder, hookimpl, open_worker

@hookimpl
def run_slices(work):
    order = work.order()
    worker, tasks = open_worker(WorkOrder.from_json(order.to_json()), "node3"), 0
    while task := work.take():
        done = worker.do(task)
        tasks += 1
        if tasks == TASK:
            files = __import__("pathlib").Path(order.tree)
            file = sorted(files.glob("*.safetensors"))[task.unit.of]
            content = bytearray(file.read_bytes())
            content[-1] ^= 1
            file.write_bytes(content)
        work.done(done)
    worker.close()
    return True
"""


def test_what_a_process_writes_elsewhere_is_not_believed(
    told: dict[str, Any], models: SimpleNamespace, distribution: Callable[..., Path]
) -> None:
    """A25"""
    source = WRITES_ELSEWHERE.replace("TASK", "1")
    install(distribution, [("executor", "far", source)], "acme-far")
    with pytest.raises(OutputError, match=r"does not hold what process \d+ on node 'node3' says to have written there"):
        merge(executing(told, "far"))
    assert not models.output.exists()


def test_one_block_of_each_process_is_read_back(
    told: dict[str, Any], distribution: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from modelmerger.output.staged_files import StagedFiles

    looks: list[int] = []
    is_written = StagedFiles.is_written
    monkeypatch.setattr(StagedFiles, "is_written", lambda *given: looks.append(given[1]) or is_written(*given))
    install(distribution, [("executor", "far", WRITES_ELSEWHERE.replace("TASK", "-1"))], "acme-far")
    merge(executing(told, "far"))
    assert len(looks) == 1


ORDERS = """
from modelmerger import hookimpl

orders = []

@hookimpl
def run_slices(work):
    orders.append((work.order(), work.take(0)))
    work.failed(KeyboardInterrupt())
    return True
"""


@pytest.fixture
def ordered(told: dict[str, Any], distribution: Callable[..., Path]) -> Any:
    """The order of a merge that was interrupted, and a task of it."""
    (module,) = install(distribution, [("executor", "orders", ORDERS)], "acme-orders")
    with pytest.raises(KeyboardInterrupt):
        merge(executing(told, "orders"))
    (found,) = sys.modules[module].orders
    return found


def test_blocks_are_on_the_storage_when_a_task_is_done(ordered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A3: the merge's own machine could not flush what another one has in memory."""
    order, task = ordered
    happened: list[tuple[str, int]] = []
    for call in ("pwrite", "fdatasync", "close"):
        real = getattr(os, call)

        def watched(descriptor: int, *given: Any, call: str = call, real: Any = real) -> Any:
            happened.append((call, descriptor))
            return real(descriptor, *given)

        monkeypatch.setattr(os, call, watched)
    worker = open_worker(order)
    happened.clear()
    worker.do(task)

    written = {descriptor for call, descriptor in happened if call == "pwrite"}
    assert len(written) == 1
    of_file = [call for call, descriptor in happened if descriptor in written]
    assert of_file[-2:] == ["fdatasync", "close"]
    worker.close()


def test_a_node_that_sees_other_files_is_named(ordered: Any, models: SimpleNamespace) -> None:
    """A25"""
    order, _ = ordered
    hidden = models.folder / "hidden"
    models.b.rename(hidden)
    with pytest.raises(
        InputError, match=r"b/model.safetensors: is not seen on node 'n2': No such file.*Mount it there"
    ):
        open_worker(order, "n2")
    hidden.rename(models.b)
    elsewhere = evolve(order, tree=str(models.folder / "nowhere" / "model"))
    with pytest.raises(OutputError, match=r"nowhere/model: is not seen on node 'n2': No such file or directory"):
        open_worker(elsewhere, "n2")
    sizes = [(path, size + 1, *rest) for path, size, *rest in order.inputs]
    with pytest.raises(InputError, match=r"is another file on node 'n2': its size is \d+ here and \d+ there"):
        open_worker(evolve(order, inputs=sizes), "n2")


def test_a_node_with_another_version_of_a_plugin_or_of_torch_is_named(ordered: Any) -> None:
    """A25"""
    order, _ = ordered
    plugins = [*order.plugins, ("plugin 'acme'", "acme", "1.1")]
    with pytest.raises(PluginError, match=r"^node 'n2': plugin 'acme' from acme 1.1 here, missing there\. Install"):
        open_worker(evolve(order, plugins=plugins), "n2")
    newer = [(name, source, "9.9") for name, source, _ in order.plugins if name == "plugin 'hub'"]
    with pytest.raises(PluginError, match=r"^node 'n2': plugin 'hub' from modelmerger 9\.9 here, [0-9.]+ there\."):
        open_worker(evolve(order, plugins=newer), "n2")
    with pytest.raises(MergeError, match=r"^node 'n2': torch 1\.0 here, [^ ]+ there\. Install the same there\.$"):
        open_worker(evolve(order, torch="1.0"), "n2")


NODE = """
import sys
from modelmerger import MergeError, WorkOrder, open_worker
try:
    open_worker(WorkOrder.from_json(open(sys.argv[1]).read()), "old-node").close()
except MergeError as error:
    sys.exit(str(error))
"""


def test_a_node_that_computes_otherwise_is_named(ordered: Any, tmp_path: Path) -> None:
    """A24: MKL is told to do without the newer instructions, as an older processor would."""
    order, _ = ordered
    (tmp_path / "order.json").write_text(order.to_json())
    told = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MKL_CBWR": "COMPATIBLE"}
    arguments = [sys.executable, "-c", NODE, str(tmp_path / "order.json")]
    found = subprocess.run(arguments, env=told, capture_output=True, text=True, check=False)
    if found.returncode == 0:
        pytest.skip("this processor comes to the same sums without its newer instructions")
    assert found.stderr == (
        "node 'old-node': this worker would come to another plan than the run: floating-point kernels differ here.\n"
    )
