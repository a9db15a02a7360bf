"""Shares of a merge are runs of its blocks: each block is in one, and those that belong together stay together."""

from types import SimpleNamespace
from typing import Any

import modelmerger.run_part  # noqa: F401 (imported here, so that `set_block` finds it)
import pytest
from attrs import evolve
from blocks import set_block
from modelmerger import MergeConfig, MergePlan, ModelMerger
from modelmerger.engine.output_blocks import OutputBlocks
from modelmerger.engine.work.sharing import blocks_of_part
from modelmerger.values.work.part import Part


@pytest.fixture(params=["slices", "whole"])
def plan(
    models: SimpleNamespace, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> MergePlan:
    set_block(monkeypatch, 1 << 10)
    planned = ModelMerger(MergeConfig(**config, options={"max_shard_size": 6_000})).plan()
    if request.param == "whole":
        planned = evolve(planned, tensors=[evolve(tensor, granularity="whole") for tensor in planned.tensors])
    return planned


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 100])
def test_each_block_is_in_one_share(plan: MergePlan, count: int) -> None:
    shares = [sorted(blocks_of_part(plan, Part(number, count))) for number in range(count)]
    blocks = OutputBlocks(plan)
    runs = [(file, *run) for file, one in enumerate(plan.layout.files) for run in blocks.runs(one)]
    every = [(file, block) for file, first, last in runs for block in range(first, last)]

    assert [block for share in shares for block in share] == sorted(every)  # none twice, and one run after another
    for file, first, last in runs:
        assert len({n for n, share in enumerate(shares) for block in range(first, last) if (file, block) in share}) == 1
    longest = max(last - first for _, first, last in runs)
    assert max(map(len, shares)) <= len(every) / count + longest
