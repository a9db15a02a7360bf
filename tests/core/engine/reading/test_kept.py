"""What is kept of measured inputs: the same bytes, a bound, and memory that nobody copies from any more."""

import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve
from modelmerger.config.resolve import resolve
from modelmerger.engine.arithmetic import Workspace
from modelmerger.engine.merged_checkpoint import MergedCheckpoint
from modelmerger.engine.reading.kept import KeptInputs
from modelmerger.inputs.direct.aligned import aligned_memory, pages_for
from modelmerger.planning.cost import Kept, bytes_held, kept_inputs, most_kept
from modelmerger.planning.prepared import prepare
from modelmerger.planning.slices import MEASURED
from modelmerger.values.options.core import CoreOptions
from safetensors.torch import save_file

ELEMENTS = 3 * MEASURED + 100
SHORT = 4096
"""Bytes of memory of the short block at the end of a tensor: a page."""
ALL = 2 * (3 * 2 * MEASURED + SHORT)


@pytest.fixture
def kept(tmp_path: Path) -> "Callable[[int], KeptInputs]":
    """Makes what keeps at most so many bytes, of two models of one tensor."""
    paths = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        torch.manual_seed(number)
        save_file({"w.weight": torch.randn(ELEMENTS).to(torch.bfloat16)}, folder / "model.safetensors")
        (folder / "config.json").write_text('{"model_type": "llama"}')
        paths.append({"path": str(folder)})
    settings, hooks = resolve({"strategy": "slerp", "models": paths, "options": {"check_loading": False}})

    def made(most: int) -> KeptInputs:
        with prepare(settings, hooks, merged=MergedCheckpoint) as ready:
            plan = evolve(ready.plan, ways={file.path: "direct" for file in ready.plan.inputs})
            return KeptInputs(plan, ready.sources, most)

    return made


def stored(kept: KeptInputs, number: int) -> torch.Tensor:
    """All elements of an input."""
    return Workspace().read(kept.checkpoints[number], "w.weight", 0, ELEMENTS)


def measure(kept: KeptInputs) -> None:
    for number in range(2):
        for start in range(0, ELEMENTS, MEASURED):
            stop = min(ELEMENTS, start + MEASURED)
            expected = stored(kept, number)[start:stop]
            assert torch.equal(kept.measured(0, number, start, stop, Workspace()), expected)


@pytest.mark.parametrize(
    ("most", "blocks", "missing"),
    [
        (ALL, 4, []),
        (ALL - 1, 3, [(3 * MEASURED, ELEMENTS)]),
        (5 * MEASURED, 1, [(MEASURED, 3 * MEASURED)]),  # and the short one at the end
        (2 * SHORT, 0, [(0, 3 * MEASURED)]),
        (0, 0, [(0, ELEMENTS)]),
    ],
)
def test_a_tensor_is_kept_as_far_as_there_is_room(
    kept: Callable[[int], KeptInputs], most: int, blocks: int, missing: list[tuple[int, int]]
) -> None:
    one = kept(most)
    measure(one)
    assert list(one.missing(0, 0, ELEMENTS)) == missing
    assert sum(len(block.content) == 2 * MEASURED for block in one._blocks.values()) == 2 * min(blocks, 3)
    assert sum(pages_for(len(block.content)) for block in one._blocks.values()) == one._held <= most


def test_what_is_missing_of_a_part_lies_in_that_part(kept: Callable[[int], KeptInputs]) -> None:
    one = kept(4 * MEASURED)
    measure(one)
    assert list(one.missing(0, 5, MEASURED)) == []
    assert list(one.missing(0, MEASURED - 1, MEASURED + 7)) == [(MEASURED, MEASURED + 7)]
    assert list(one.missing(0, MEASURED + 7, 2 * MEASURED)) == [(MEASURED + 7, 2 * MEASURED)]
    assert list(one.missing(1, 5, 8)) == [(5, 8)]


def test_what_was_measured_twice_is_kept_when_there_is_room(kept: Callable[[int], KeptInputs]) -> None:
    """Rounds: a block that there was no room for is kept in the next one, and one that is kept is not read again."""
    one = kept(0)
    measure(one)
    one.most = ALL
    measure(one)
    before = dict(one._blocks)
    measure(one)
    assert len(before) == 8
    assert all(one._blocks[key] is block for key, block in before.items())


@pytest.mark.parametrize("most", [ALL, 8 * MEASURED, 4 * MEASURED, 0])
def test_what_is_merged_is_what_was_stored_and_goes_then(kept: Callable[[int], KeptInputs], most: int) -> None:
    one = kept(most)
    measure(one)
    cuts = [0, 5, MEASURED - 1, MEASURED + 7, 3 * MEASURED, ELEMENTS]
    for number in range(2):
        expected = stored(one, number)
        for start, stop in zip(cuts, cuts[1:], strict=False):
            assert torch.equal(one.merged(0, number, start, stop, Workspace(), "raw"), expected[start:stop])
    assert not one._blocks
    assert one._held == 0


def test_memory_that_another_thread_copies_from_is_not_used_again(kept: Callable[[int], KeptInputs]) -> None:
    """A row that two units share is merged twice, so that a block is over while one of them is not."""
    one = kept(ALL)
    measure(one)
    expected = stored(one, 0)[:MEASURED]
    with one._used(0, 0, 0, MEASURED) as blocks:
        other = threading.Thread(target=one.merged, args=(0, 0, 0, MEASURED, Workspace(), "raw"))
        other.start()
        other.join()
        assert (0, 0, 0) not in one._blocks
        assert not any(one._free.values())
        assert torch.equal(blocks[0].content.view(torch.bfloat16), expected)
    assert one._held == ALL - 2 * MEASURED


def test_memory_of_one_length_goes_where_another_is_wanted(
    kept: Callable[[int], KeptInputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    there: weakref.WeakSet[Any] = weakref.WeakSet()

    def memory(length: int) -> memoryview:
        made = aligned_memory(length)
        there.add(made.obj)
        return made

    monkeypatch.setattr("modelmerger.engine.reading.kept.aligned_memory", memory)
    one = kept(8 * MEASURED)
    measure(one)
    for number in range(2):
        one.merged(0, number, 0, 2 * MEASURED, Workspace(), "raw")
    assert sum(map(len, there)) == 8 * MEASURED  # for what comes next
    one.measured(0, 0, MEASURED, 2 * MEASURED, Workspace())
    assert sum(map(len, there)) == 8 * MEASURED
    one.measured(0, 0, 3 * MEASURED, ELEMENTS, Workspace())
    assert sum(map(len, there)) == 6 * MEASURED + SHORT


def test_what_is_planned_covers_what_is_kept(kept: Callable[[int], KeptInputs]) -> None:
    plan, checkpoints = kept(0).plan, kept(0).checkpoints
    held = bytes_held(checkpoints, plan.tensors[0])
    assert held == ALL
    two = [plan.tensors[0]] * 2  # near each other
    assert kept_inputs(plan.ways, checkpoints, plan.tensors, 2, 1 << 30) == Kept(held, 4 * ELEMENTS)
    assert kept_inputs(plan.ways, checkpoints, plan.tensors, 2, held - 1) == Kept(
        held - 1, 4 * ELEMENTS * (held - 1) // held
    )
    assert kept_inputs({}, checkpoints, plan.tensors, 2, 1 << 30) == Kept(0, 0)
    assert kept_inputs(plan.ways, checkpoints, two, 2, 1 << 30) == Kept(2 * held, 8 * ELEMENTS)
    assert kept_inputs(plan.ways, checkpoints, two, 2, held + 10) == Kept(held + 10, 4 * ELEMENTS * (held + 10) // held)


@pytest.mark.parametrize(("workers", "less"), [(1, 0), (4, 0), (32, 28 * 2 * 8 * MEASURED)])
def test_what_many_workers_measure_in_is_taken_from_memory(
    kept: Callable[[int], KeptInputs], monkeypatch: pytest.MonkeyPatch, workers: int, less: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(workers)))
    tensors = kept(0).plan.tensors
    assert most_kept(CoreOptions(), tensors) == (512 << 20) - less
    assert most_kept(CoreOptions(low_memory_mode=True), tensors) == 0
