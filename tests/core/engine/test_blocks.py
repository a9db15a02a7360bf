"""The engine makes the same bytes whatever the workers, slices, shards and order, and counts and observes each element once."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modelmerger
import pytest
import torch
from blocks import CountingSink, contents, set_block
from conftest import random_tensors, write_model
from modelmerger import MemorySink, MergeConfig, Unit, verify
from modelmerger.planning import slices
from modelmerger.testing import Planned, plan_in_memory
from safetensors.torch import load_file

SHAPES = {
    "matrix": (61, 37),
    "rows": (300, 7),
    "odd": (1, 1013),
    "vector": (999,),
    "cube": (5, 7, 11),
    "scalar": (),
    "empty": (0, 4),
}
STRATEGIES = {
    "softmax_rows": """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, None), granularity="rowwise")

@hookimpl
def merge_tensor(tensors):
    stacked = torch.stack(list(tensors))
    shares = torch.softmax(stacked.double().norm(dim=-1, keepdim=True) * 10, dim=0)
    return (stacked * shares.to(stacked.dtype)).sum(dim=0)

@hookimpl
def finish_tensor(merged):
    negative = int((merged < 0).sum())
    merged.clamp_(min=0)
    return {"negative": negative}
""",
    "low_rank": """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, None), granularity="whole")

@hookimpl
def merge_tensor(tensors):
    mean = sum(tensors) / len(tensors)
    if mean.ndim != 2:
        return mean
    u, s, v = torch.linalg.svd(mean.double(), full_matrices=False)
    return ((u[:, :2] * s[:2]) @ v[:2]).to(mean.dtype).contiguous()

@hookimpl
def finish_tensor(merged):
    negative = int((merged < 0).sum())
    merged.clamp_(min=0)
    return {"negative": negative}
""",
    "measured": """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, None))

@hookimpl
def measure_tensor(tensors):
    return torch.stack([tensor.double().abs().sum() for tensor in tensors])

@hookimpl
def merge_tensor(tensors, measurements):
    shares = measurements[0] / measurements[0].sum()
    return sum(share * tensor for share, tensor in zip(shares.tolist(), tensors))
""",
    "measured_rows": """
import torch
from modelmerger import Traits, hookimpl

traits = Traits(models=(2, None), granularity="rowwise")

@hookimpl
def measure_tensor(tensors):
    return torch.stack([(tensor.double().sum(dim=-1) ** 2).sum() for tensor in tensors])

@hookimpl
def merge_tensor(tensors, measurements):
    shares = (measurements[0] / measurements[0].sum()).tolist()
    return sum(share * tensor for share, tensor in zip(shares, tensors))
""",
}
OBSERVER = """
from modelmerger import hookimpl

@hookimpl
def observe_slice(tensors, merged):
    shapes = {tuple(tensor.shape) for tensor in (*tensors, merged)}
    assert len(shapes) == 1 and merged.ndim == 1
    return {"elements": merged.numel(), "sum": float(merged.double().sum())}
"""
BUILT_IN = ("weighted", "sequential", "task_arithmetic", "slerp")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of files of 1 KiB, windows of 256 bytes, blocks of measurements of 500 numbers: small tensors lie in many."""
    set_block(monkeypatch, 1 << 10)
    monkeypatch.setattr(slices, "WINDOW", 1 << 8)
    monkeypatch.setattr("modelmerger.planning.measured.MEASURED", 500)


@pytest.fixture(autouse=True)
def _installed(distribution: Callable[..., Path]) -> None:
    """The strategies above, beside the built-in ones."""
    entry_points = "".join(f"{name} = {name}_module\n" for name in STRATEGIES)
    modules = {f"{name}_module": source for name, source in STRATEGIES.items()}
    distribution("acme-strategies", "1.0", f"[modelmerger.strategies]\n{entry_points}", **modules)


def plan_of(strategy: str, **options: Any) -> Planned:
    base = random_tensors(0, torch.bfloat16, SHAPES)
    models = [
        random_tensors(seed, dtype, SHAPES, near=base) for seed, dtype in ((1, torch.bfloat16), (2, torch.float32))
    ]
    with_base = base if strategy == "task_arithmetic" else None
    options |= {"clamp_weights": True, "clamp_range": [-0.02, 0.03]} if strategy == "task_arithmetic" else {}
    weights = [1, 0.3] if strategy == "sequential" else [0.6, 0.3]
    return plan_in_memory(strategy, models, with_base, weights, options=options)


def in_reverse(units: Sequence[Unit]) -> list[Unit]:
    """What comes last is done first."""
    return list(reversed(units))


def shuffled(units: Sequence[Unit]) -> list[Unit]:
    """Any order."""
    mixed = list(units)
    random.Random(7).shuffle(mixed)
    return mixed


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("strategy", [*BUILT_IN, *STRATEGIES])
def test_bytes_do_not_depend_on_workers_slices_or_order(strategy: str) -> None:
    merge = plan_of(strategy)
    expected = merge.stage(workers=1, slice_elements=1 << 18)

    variants = [
        merge.stage(workers=1, slice_elements=53),
        merge.stage(workers=4, slice_elements=100),
        merge.stage(workers=3, slice_elements=1 << 18),
        merge.stage(order=in_reverse, workers=1, slice_elements=97),
        merge.stage(order=shuffled, workers=2, slice_elements=999),
    ]

    assert len(expected.records) == -(-merge.plan.bytes_written // 1024) > 10
    for staging in variants:
        assert contents(staging) == contents(expected)
        assert {key: record.pieces for key, record in staging.records.items()} == {
            key: record.pieces for key, record in expected.records.items()
        }


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("strategy", [*BUILT_IN, *STRATEGIES])
def test_tensors_do_not_depend_on_the_size_of_shards_and_blocks(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_blocks = plan_of(strategy).merge()
    in_shards = plan_of(strategy, max_shard_size=3000)
    assert len(in_shards.plan.layout.files) > 3
    shards = in_shards.merge()
    set_block(monkeypatch, 16 << 20)
    monkeypatch.setattr(slices, "WINDOW", 1 << 20)
    in_one_block = plan_of(strategy).merge()

    assert in_small_blocks.keys() == shards.keys() == in_one_block.keys() == SHAPES.keys()
    for name, tensor in in_one_block.items():
        assert tensor.shape == SHAPES[name]
        assert tensor.dtype == torch.bfloat16
        for other in (in_small_blocks, shards):
            assert torch.equal(other[name].view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("strategy", ["task_arithmetic", "softmax_rows", "low_rank"])
def test_counts_do_not_depend_on_slices_or_on_what_was_staged_before(strategy: str) -> None:
    merge = plan_of(strategy)
    whole = merge.stage(workers=1, slice_elements=1 << 18)
    expected = counted(whole)
    assert expected > 0

    assert counted(merge.stage(workers=3, slice_elements=67)) == expected
    resumed = CountingSink(merge.plan.layout)
    for name, tensor in whole.tensors.items():
        resumed.tensors[name].copy_(tensor)
    resumed.records = {key: record for key, record in whole.records.items() if key[1] % 3}
    before = dict(resumed.records)
    merge.stage(staged=resumed, slice_elements=71)

    assert resumed.bytes_written > 0
    if strategy != "low_rank":  # whole tensors that share blocks are made together
        assert resumed.bytes_written < merge.plan.bytes_written
    assert counted(resumed) == expected
    assert contents(resumed) == contents(whole)
    assert all(resumed.records[key].pieces == record.pieces for key, record in before.items())


@pytest.mark.usefixtures("small_blocks")
def test_counts_are_what_numpy_counts() -> None:
    merge = plan_of("task_arithmetic")

    staging = merge.stage(slice_elements=50)

    base = random_tensors(0, torch.bfloat16, SHAPES)
    first, second = (
        random_tensors(1, torch.bfloat16, SHAPES, near=base),
        random_tensors(2, torch.float32, SHAPES, near=base),
    )
    exact = [
        b.double() + 0.6 * (first[n].double() - b.double()) + 0.3 * (second[n].double() - b.double())
        for n, b in base.items()
    ]
    assert sum(r.counts["clamped values"] for r in staging.records.values() if r.counts) == sum(
        int(((values < -0.02) | (values > 0.03)).sum()) for values in exact
    )


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("strategy", ["slerp", "task_arithmetic", "measured", "softmax_rows", "low_rank"])
def test_every_element_is_observed_once(strategy: str, distribution: Callable[..., Path]) -> None:
    plain = contents(plan_of(strategy).stage())
    distribution("acme-observer", "1.0", "[modelmerger.plugins]\nwatch = acme_observer\n", acme_observer=OBSERVER)
    merge = plan_of(strategy)

    for elements in (1 << 18, 83):
        staging = merge.stage(slice_elements=elements)

        assert contents(staging) == plain
        sums: dict[str, float] = {}
        for record in staging.records.values():
            for tensor, found in record.observed.items():
                sums[tensor] = sums.get(tensor, 0) + found["plugin watch: elements"]
        assert sums == {name: torch.Size(shape).numel() for name, shape in SHAPES.items() if name != "empty"}


def test_observed_sums_reach_the_report(
    models: SimpleNamespace, config: dict[str, Any], distribution: Callable[..., Path]
) -> None:
    distribution("acme-observer", "1.0", "[modelmerger.plugins]\nwatch = acme_observer\n", acme_observer=OBSERVER)

    report = modelmerger.merge(MergeConfig(**config))

    for name, a in models.tensors["a"].items():
        exact = 0.6 * a.double() + 0.4 * models.tensors["b"][name].double()
        assert report.observed[name]["plugin watch: elements"] == a.numel()
        assert report.observed[name]["plugin watch: sum"] == pytest.approx(float(exact.sum()), abs=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"low_memory_mode": True}, {"sequential_loading": True}, {"parallel_loading": False}, {"max_shard_size": "2KB"}],
    ids=str,
)
def test_options_of_speed_and_memory_do_not_change_a_bit(models: SimpleNamespace, options: dict[str, Any]) -> None:
    config = {"strategy": "slerp", "models": [{"path": str(models.a)}, {"path": str(models.b)}]}
    modelmerger.merge(MergeConfig(**{**config, "output_path": str(models.folder / "plain")}))
    modelmerger.merge(MergeConfig(**{**config, "options": options, "output_path": str(models.folder / "other")}))

    plain = load_file(models.folder / "plain/model.safetensors")
    other = [load_file(file) for file in sorted((models.folder / "other").glob("*.safetensors"))]
    assert len(other) > 1 or "max_shard_size" not in options
    merged = {name: tensor for tensors in other for name, tensor in tensors.items()}
    assert merged.keys() == plain.keys()
    assert all(torch.equal(merged[name], tensor) for name, tensor in plain.items())


ENGINE = """
from modelmerger import hookimpl

@hookimpl
def run_slices(work):
    worker, ready = work.local(), True
    while ready:
        ready = []
        while task := work.take(0):
            ready.append(task)
        for task in reversed(ready):
            work.done(worker.do(task))
    return True
"""


@pytest.mark.usefixtures("small_blocks")
def test_an_engine_of_a_plugin_that_starts_at_the_end_makes_the_same_files(
    tmp_path: Path, distribution: Callable[..., Path]
) -> None:
    paths = [write_model(tmp_path / name, random_tensors(seed, shapes=SHAPES)) for seed, name in enumerate("ab")]
    config = {"strategy": "slerp", "models": [{"path": str(path)} for path in paths]}
    modelmerger.merge(MergeConfig(**{**config, "output_path": str(tmp_path / "threads")}))
    distribution("acme-engine", "1.0", "[modelmerger.plugins]\nbackwards = acme_engine\n", acme_engine=ENGINE)

    modelmerger.merge(MergeConfig(**{**config, "output_path": str(tmp_path / "backwards")}))

    expected = (tmp_path / "threads/model.safetensors").read_bytes()
    assert (tmp_path / "backwards/model.safetensors").read_bytes() == expected
    assert verify(tmp_path / "backwards").files > 1


LAYOUT = """
from modelmerger import Layout, OutputFile, Placement, hookimpl

@hookimpl
def save_model(tensors):
    begin, placements = 0, []
    for tensor in sorted(tensors, key=lambda tensor: -tensor.bytes):
        placements.append(Placement(tensor, begin))
        begin += tensor.bytes
    return Layout("raw", [OutputFile("all.raw", begin, (), tuple(reversed(placements)))])
"""


@pytest.mark.usefixtures("small_blocks")
def test_a_layout_may_name_tensors_in_any_order(distribution: Callable[..., Path]) -> None:
    distribution("acme-layout", "1.0", "[modelmerger.plugins]\nraw = acme_layout\n", acme_layout=LAYOUT)
    tensors = random_tensors(1, torch.float16, SHAPES)

    merged = plan_in_memory("weighted", [tensors]).merge()

    assert list(merged) == sorted(tensors, key=lambda name: tensors[name].nbytes)
    assert all(torch.equal(merged[name], tensor) for name, tensor in tensors.items())


def counted(staging: MemorySink) -> int:
    return sum(value for record in staging.records.values() for value in record.counts.values())
