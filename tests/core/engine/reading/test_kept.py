"""What is kept of measured inputs: the same bytes, a bound, and memory that nobody copies from any more."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from attrs import evolve
from modelmerger.config.resolve import resolve
from modelmerger.engine.arithmetic import Workspace
from modelmerger.engine.merged_checkpoint import MergedCheckpoint
from modelmerger.engine.reading.kept import KeptInputs
from modelmerger.planning.cost import bytes_held, bytes_kept, most_kept
from modelmerger.planning.prepared import prepare
from modelmerger.planning.slices import MEASURED
from modelmerger.values.options.core import CoreOptions
from safetensors.torch import save_file

ELEMENTS = 3 * MEASURED + 100


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


def measure(kept: KeptInputs) -> None:
    for number in range(2):
        for start in range(0, ELEMENTS, MEASURED):
            stop = min(ELEMENTS, start + MEASURED)
            expected = kept.checkpoints[number]["w.weight"][start:stop]  # type: ignore[index]
            assert torch.equal(kept.measured(0, number, start, stop, Workspace()), expected)


@pytest.mark.parametrize(("most", "holds"), [(4 * ELEMENTS, True), (4 * ELEMENTS - 1, False), (0, False)])
def test_a_tensor_is_kept_whole_or_not_at_all(kept: Callable[[int], KeptInputs], most: int, holds: bool) -> None:
    one = kept(most)
    measure(one)
    assert one.holds(0) == holds
    assert sum(len(block.content) for block in one._blocks.values()) == 4 * ELEMENTS * holds


def test_what_is_merged_is_what_was_stored_and_goes_then(kept: Callable[[int], KeptInputs]) -> None:
    one = kept(4 * ELEMENTS)
    measure(one)
    cuts = [0, 5, MEASURED - 1, MEASURED + 7, 3 * MEASURED, ELEMENTS]
    for number in range(2):
        stored = one.checkpoints[number]["w.weight"]  # type: ignore[index]
        for start, stop in zip(cuts, cuts[1:], strict=False):
            assert torch.equal(one.merged(0, number, start, stop, Workspace(), "raw"), stored[start:stop])
    assert not one._blocks
    assert one._held[0] == 0


def test_memory_that_another_thread_copies_from_is_not_used_again(kept: Callable[[int], KeptInputs]) -> None:
    """A row that two units share is merged twice, so that a block is over while one of them is not."""
    one = kept(4 * ELEMENTS)
    measure(one)
    stored = one.checkpoints[0]["w.weight"][:MEASURED]  # type: ignore[index]
    with one._used(0, 0, 0, MEASURED) as blocks:
        other = threading.Thread(target=one.merged, args=(0, 0, 0, MEASURED, Workspace(), "raw"))
        other.start()
        other.join()
        assert (0, 0, 0) not in one._blocks
        assert not one._free
        assert torch.equal(blocks[0].content.view(torch.bfloat16), stored)
    assert one._held[0] == 4 * ELEMENTS - 2 * MEASURED


def test_what_is_planned_covers_what_is_kept(kept: Callable[[int], KeptInputs]) -> None:
    plan, checkpoints = kept(0).plan, kept(0).checkpoints
    held = bytes_held(checkpoints, plan.tensors[0])
    assert held == 4 * ELEMENTS
    assert bytes_kept(plan.ways, checkpoints, plan.tensors, 2, 1 << 30) == held
    assert bytes_kept(plan.ways, checkpoints, plan.tensors, 2, held - 1) == 0
    assert bytes_kept({}, checkpoints, plan.tensors, 2, 1 << 30) == 0
    assert bytes_kept(plan.ways, checkpoints, [plan.tensors[0]] * 2, 2, 1 << 30) == 2 * held  # near each other


@pytest.mark.parametrize(("workers", "less"), [(1, 0), (4, 0), (32, 28 * 2 * 8 * MEASURED)])
def test_what_many_workers_measure_in_is_taken_from_memory(
    kept: Callable[[int], KeptInputs], monkeypatch: pytest.MonkeyPatch, workers: int, less: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(workers)))
    tensors = kept(0).plan.tensors
    assert most_kept(CoreOptions(), tensors) == (512 << 20) - less
    assert most_kept(CoreOptions(low_memory_mode=True), tensors) == 0
