"""An executor of another distribution: other processes, any order, tasks done twice, workers that outlive their run."""

import importlib.util
import itertools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from attrs import evolve
from blocks import set_block
from conftest import random_tensors
from faults.stopping import die, ended, fork
from modelmerger import ConfigError, MergeConfig, MergeError, PluginError, Watch, WorkOrder, merge, open_worker, verify
from modelmerger.engine import measuring
from safetensors.torch import save_file

from tests.core.plugging import WEIGHTS_SQUARED, install

EXECUTOR = '''
"""Does tasks in processes of its own, in a random order, and every third one twice."""

import contextlib
import multiprocessing
import random

from attrs import frozen
from modelmerger import WorkOrder, hookimpl, open_worker


@frozen
class Options:
    processes: int = 2


def next_task(connection):
    try:
        return connection.recv()
    except EOFError:
        return None


def serve(order, connection, others):
    for other in others:  # a fork has them too, and would never hear that this process is gone
        other.close()
    worker = open_worker(WorkOrder.from_json(order))
    while (task := next_task(connection)) is not None:
        try:
            connection.send(worker.do(task))
        except Exception as error:
            connection.send(error)
    worker.close()


@hookimpl
def run_slices(work, options):
    order, context, chance = work.order().to_json(), multiprocessing.get_context("fork"), random.Random(3)
    connections, processes = [], []
    for _ in range(options.processes):
        ours, theirs = context.Pipe()
        connections.append(ours)
        processes.append(context.Process(target=serve, args=(order, theirs, list(connections)), daemon=True))
        processes[-1].start()
        theirs.close()
    try:
        while ready := list(iter(lambda: work.take(0), None)):
            chance.shuffle(ready)
            ready += ready[::3]
            for start in range(0, len(ready), len(connections)):
                shared = list(zip(connections, ready[start:], strict=False))
                for connection, task in shared:
                    connection.send(task)
                for connection, _ in shared:
                    done = connection.recv()
                    if isinstance(done, Exception):
                        work.failed(done)
                        return True
                    work.done(done)
    finally:
        for connection, process in zip(connections, processes, strict=True):
            with contextlib.suppress(OSError):
                connection.send(None)
            process.join(30)
    return True
'''
ROUNDS = """
import math
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(1, None), inputs="updates", rounds=2)

@hookimpl
def measure_tensor(tensors, round, measurements, shape):
    if round == 0:
        return torch.stack([tensor.double().abs().sum() for tensor in tensors])
    means = measurements[0] / math.prod(shape)
    return torch.stack([(tensor.double().abs() > mean).sum() for tensor, mean in zip(tensors, means)])

@hookimpl
def merge_tensor(tensors, measurements, random, inputs):
    shares = measurements[0] * measurements[1] + 1
    parts = zip(tensors, (shares / shares.sum()).tolist(), inputs)
    return sum(tensor * share * (random(model) < 0.5) for tensor, share, model in parts)
"""
MERGES = {
    "weighted": {"options": {"normalize_weights": False}},
    "slerp": {},
    "rounds": {"base_model": "base"},
    "geometry": {"strategy": "task_arithmetic", "base_model": "base", "options": {"geometry": True}},
}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tensors lie in many blocks, and are measured in many units."""
    set_block(monkeypatch, 1 << 10)
    monkeypatch.setattr("modelmerger.planning.measured.MEASURED", 100)
    monkeypatch.setattr(measuring, "BLOCKS_A_UNIT", 2)


@pytest.fixture(autouse=True)
def _installed(distribution: Callable[..., Path]) -> None:
    points = "[modelmerger.executors]\nprocesses = acme_processes\n[modelmerger.strategies]\nrounds = acme_rounds\n"
    distribution("acme", "1.0", points, acme_processes=EXECUTOR, acme_rounds=ROUNDS)


@pytest.fixture
def config_of(models: SimpleNamespace) -> Callable[..., dict[str, Any]]:
    def make(name: str, executor: str | None, output: str, **options: Any) -> dict[str, Any]:
        told = {"strategy": name, **MERGES.get(name, {})}
        if "base_model" in told:
            told["base_model"] = str(models.base)
        told["options"] = {**told.get("options", {}), "max_shard_size": 2_000, **options}
        told["options"] |= {"executor": executor} if executor else {}
        paths = [{"path": str(models.a)}, {"path": str(models.b)}]
        return {**told, "models": paths, "output_path": str(models.folder / output)}

    return make


def killed_at_the_third_line() -> Callable[[str, Path], None]:
    """The journal's first line is its head, the others are blocks."""
    lines = itertools.count(1)
    return lambda step, _: die() if step == "journal" and next(lines) == 3 else None


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", MERGES)
def test_other_processes_in_any_order_and_some_of_it_twice_make_the_same_directory(
    models: SimpleNamespace, config_of: Callable[..., dict[str, Any]], name: str
) -> None:
    moved: list[tuple[int, int]] = []
    merge(MergeConfig(**config_of(name, None, "merged")))
    (models.folder / "merged").rename(models.folder / "threads")
    watch = Watch(progress=lambda done, total: moved.append((done, total)))

    merge(MergeConfig(**config_of(name, "processes", "merged", processes=3)), watch)

    assert content(models.folder / "merged") == content(models.folder / "threads")
    assert moved[-1][0] == moved[-1][1]
    assert verify(models.folder / "merged").files > 1


@pytest.mark.usefixtures("small_blocks")
def test_a_folded_adapter_is_rebuilt_in_other_processes(models: SimpleNamespace) -> None:
    adapter = models.folder / "adapter"
    adapter.mkdir()
    told = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["mlp"], "bias": "none"}
    told["base_model_name_or_path"] = str(models.base)
    (adapter / "adapter_config.json").write_text(json.dumps(told))
    rows, columns = models.tensors["base"]["model.layers.1.mlp.weight"].shape
    name = "base_model.model.model.layers.1.mlp.lora_{}.weight"
    factors = {name.format("A"): torch.randn(2, columns), name.format("B"): torch.randn(rows, 2)}
    save_file(factors, adapter / "adapter_model.safetensors")
    for executor in (None, "processes"):
        told = {
            "strategy": "weighted",
            "models": [{"path": str(adapter)}, {"path": str(models.a)}],
            "output_path": str(models.folder / str(executor)),
            "options": {"executor": executor} if executor else {},
        }
        merge(MergeConfig(**told))
    weights = [(models.folder / name / "model.safetensors").read_bytes() for name in ("None", "processes")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(("first", "second"), [("processes", None), (None, "processes")])
def test_what_one_executor_began_another_goes_on_with(
    models: SimpleNamespace, config_of: Callable[..., dict[str, Any]], first: str | None, second: str | None
) -> None:
    merge(MergeConfig(**config_of("slerp", None, "merged")))
    expected = content(models.folder / "merged")
    begun = config_of("slerp", first, "merged", overwrite=True)
    assert ended(fork(lambda: merge(MergeConfig(**begun), Watch(step=killed_at_the_third_line())) and None)) != 0

    report = merge(MergeConfig(**config_of("slerp", second, "merged", overwrite=True)))

    assert report.bytes_reused > 0
    assert {name: found for name, found in content(models.folder / "merged").items() if "safetensors" in name} == {
        name: found for name, found in expected.items() if "safetensors" in name
    }


def test_what_a_worker_elsewhere_raises_is_the_error_of_the_merge(
    models: SimpleNamespace, config_of: Callable[..., dict[str, Any]]
) -> None:
    tensors = random_tensors(3)
    tensors["model.layers.1.mlp.weight"][0, 0] = torch.nan
    save_file(tensors, models.b / "model.safetensors")

    with pytest.raises(MergeError, match=r"layers.1.mlp.*'b' holds 1 NaN"):
        merge(MergeConfig(**config_of("weighted", "processes", "merged")))
    assert not (models.folder / "merged").exists()


OUTLIVES = """
from modelmerger import OutputError, WorkOrder, hookimpl, open_worker

old = []
refused = []

@hookimpl
def run_slices(work):
    if not old:
        worker, task = open_worker(WorkOrder.from_json(work.order().to_json())), work.take(0)
        old.append((worker, task, worker.do(task)))
        raise OSError("the cluster is gone")
    worker, task, done = old[0]
    work.done(done)
    try:
        worker.do(task)
    except OutputError as error:
        refused.append(str(error))
    mine = work.local()
    while task := work.take():
        work.done(mine.do(task))
    return True
"""


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("strategy", ["weighted", "sequential"])
def test_a_worker_that_outlives_its_run_cannot_touch_the_next(
    models: SimpleNamespace,
    config_of: Callable[..., dict[str, Any]],
    distribution: Callable[..., Path],
    strategy: str,
) -> None:
    """Neither the tree at the same path, nor what is noted of it: be the next run of the same plan or of another."""
    (module,) = install(distribution, [("executor", "outlives", OUTLIVES)], "acme-outlives")
    merge(MergeConfig(**config_of(strategy, None, "expected")))
    with pytest.raises(PluginError, match="OSError in run_slices: the cluster is gone"):
        merge(MergeConfig(**config_of("weighted", "outlives", "merged")))

    report = merge(MergeConfig(**config_of(strategy, "outlives", "merged")))

    (refused,) = importlib.import_module(module).refused
    assert refused.endswith("is not of this run any more. The worker that wanted to write there stops.")
    assert verify(models.folder / "merged").files > 1
    expected, found = content(models.folder / "expected"), content(models.folder / "merged")
    assert all(found[name] == expected[name] for name in found if name.endswith(".safetensors"))
    assert report.bytes_reused == 0  # what the first run was told of was not noted there either


ORDERS = """
from modelmerger import hookimpl

orders = []

@hookimpl
def run_slices(work):
    orders.append(work.order())
    work.failed(KeyboardInterrupt())
    return True
"""


@pytest.fixture
def order(
    models: SimpleNamespace, config_of: Callable[..., dict[str, Any]], distribution: Callable[..., Path]
) -> WorkOrder:
    """The order of a merge that was interrupted."""
    (module,) = install(distribution, [("executor", "orders", ORDERS)], "acme-orders")
    with pytest.raises(KeyboardInterrupt):
        merge(MergeConfig(**config_of("slerp", "orders", "merged")))
    (order,) = importlib.import_module(module).orders
    assert WorkOrder.from_json(order.to_json()) == order
    return order  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", [{"io": "direct", "memory": "1MB"}, {"io": "buffered"}, {}])
def test_workers_hear_which_way_bytes_go(
    models: SimpleNamespace, config_of: Callable[..., dict[str, Any]], distribution: Callable[..., Path], how: Any
) -> None:
    """And come to the same plan, since no byte depends on it."""
    (module,) = install(distribution, [("executor", "orders", ORDERS)], "acme-orders")
    config = config_of("slerp", "orders", "merged")
    config["options"] = {**config.get("options", {}), **how}
    with pytest.raises(KeyboardInterrupt):
        merge(MergeConfig(**config))
    (order,) = importlib.import_module(module).orders
    told = order.config.get("options", {})
    assert {key: told[key] for key in ("io", "memory") if key in told} == how
    open_worker(order).close()


@pytest.mark.usefixtures("models")
def test_a_worker_says_what_would_come_out_otherwise(order: WorkOrder, models: SimpleNamespace) -> None:
    open_worker(order).close()
    for told, sentence in (
        ({"token": "0" * 32}, "is not of this run any more"),
        ({"tree": str(models.folder / "nowhere")}, "No such file or directory"),
        ({"located": []}, f"the work order does not say where '{models.a}' is"),
        ({"config": {**order.config, "strategy": "weighted"}}, "another plan than the run: strategy, "),
    ):
        with pytest.raises(MergeError, match=re.escape(sentence)):
            open_worker(evolve(order, **told))
    os.utime(models.b / "model.safetensors")
    with pytest.raises(MergeError, match=r"is another file on node '.*': its time of change .* is [0-9]+ here and"):
        open_worker(order)


def test_a_worker_whose_floats_come_out_otherwise_is_refused(order: WorkOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelmerger.engine.arithmetic_digest.arithmetic_digest", lambda: "0" * 64)
    with pytest.raises(MergeError, match="another plan than the run: floating-point kernels differ here"):
        open_worker(order)


def test_models_are_where_the_order_says_and_nobody_is_asked_again(
    order: WorkOrder, distribution: Callable[..., Path]
) -> None:
    source = "from modelmerger import hookimpl\n@hookimpl\ndef locate_model():\n    raise OSError('asked')\n"
    install(distribution, [("plugin", "finder", source)], "acme-finder")
    with pytest.raises(PluginError, match=r"plugin 'finder' from acme-finder 1.0 takes part there, and none of that"):
        open_worker(order)


def test_an_executor_that_is_not_installed_is_said_before_anything_is_read(
    config_of: Callable[..., dict[str, Any]], distribution: Callable[..., Path]
) -> None:
    with pytest.raises(
        ConfigError, match=r"^options.executor: no executor is named 'dask' \(installed: processes, ray, threads\)"
    ):
        merge(MergeConfig(**config_of("weighted", "dask", "merged")))
    install(distribution, [("executor", "idle", "from modelmerger import hookimpl\n")], "acme-idle")
    with pytest.raises(PluginError, match=r"executor 'idle' from acme-idle 1\.0 has no hook run_slices"):
        merge(MergeConfig(**config_of("weighted", "idle", "merged")))


FAILS = """
from modelmerger import hookimpl

@hookimpl
def run_slices(work):
    work.take()
    work.failed(RuntimeError("node 3 is gone."))
    return True
"""


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_its_executor_says_how_to_get_it(config_of: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(PluginError, match=r"^executor 'ray' needs Ray\. Run: pip install 'modelmerger\[ray\]'$"):
        merge(MergeConfig(**config_of("weighted", "ray", "merged")))


def test_what_fails_in_an_executor_is_put_down_to_it(
    config_of: Callable[..., dict[str, Any]], distribution: Callable[..., Path]
) -> None:
    install(distribution, [("executor", "far", FAILS)], "acme-far")
    with pytest.raises(PluginError) as failed:
        merge(MergeConfig(**config_of("weighted", "far", "merged")))
    assert str(failed.value) == (
        "executor 'far' from acme-far 1.0: RuntimeError: node 3 is gone. Mend that, and run the same command again."
    )


def test_what_cannot_be_sent_is_said_with_the_option(
    models: SimpleNamespace, config_of: Callable[..., dict[str, Any]]
) -> None:
    told = config_of("weighted", "processes", "merged")
    told["models"] = [{"path": models.tensors["a"]}, {"path": models.tensors["b"]}]
    with pytest.raises(ConfigError, match=r"^options.executor: models in memory are merged, which no worker elsewhere"):
        merge(MergeConfig(**told))
    source = models.folder / "halves.py"
    source.write_text(WEIGHTS_SQUARED)
    module = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("halves", source))
    spec.loader.exec_module(module)
    with pytest.raises(ConfigError, match=r"^options.executor: strategy 'halves' .* is not installed, so no worker"):
        merge(MergeConfig(**{**config_of("slerp", "processes", "merged"), "strategy": module}))


def test_the_built_in_executor_has_a_name_too(
    models: SimpleNamespace, config_of: Callable[..., dict[str, Any]]
) -> None:
    merge(MergeConfig(**config_of("weighted", "threads", "merged")))
    assert verify(models.folder / "merged").files > 1
