"""A merge on more machines: each takes its share of what is moved and computed, and borders cost a tensor each."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from modelmerger import MergeConfig, MergePlan, ModelMerger
from modelmerger.planning.outlook.nodes import on_nodes, shown_nodes
from modelmerger.planning.outlook.rates import A_TENSOR, START, Outlook

OUTLOOK = Outlook("/out", 10**15, True, 1e9, 1e9, 1000.0, 800.0, 100.0)


@pytest.fixture
def plan(models: SimpleNamespace, config: dict[str, Any]) -> MergePlan:
    planned = ModelMerger(MergeConfig(**config)).plan()
    return evolve(planned, bytes_read=600, bytes_written=400, bytes_reused=0, memory=7)


def test_shares_of_what_is_moved_take_a_share_of_the_time(plan: MergePlan) -> None:
    least = START + A_TENSOR * len(plan.tensors)
    rows = on_nodes(plan, OUTLOOK, 16)
    assert [row.nodes for row in rows] == [1, 2, 4, 8, 16]
    assert [row.bytes_a_node for row in rows] == [1000, 500, 250, 125, 62]
    assert [row.seconds for row in rows] == pytest.approx([least + 800 / nodes for nodes in (1, 2, 4, 8, 16)])
    assert {(row.memory, row.bottleneck, row.bytes_in_all) for row in rows} == {(7, "storage", 1000)}
    assert rows[2].storage == pytest.approx(1000 / (least + 200))
    assert [row.nodes for row in on_nodes(plan, OUTLOOK, 3)] == [1, 2, 3]
    assert [row.nodes for row in on_nodes(plan, OUTLOOK, 1)] == [1]


def test_what_is_measured_is_read_once_more_at_each_border(plan: MergePlan) -> None:
    tensors = [evolve(tensor, action="combine", coefficients=None) for tensor in plan.tensors]
    rows = on_nodes(evolve(plan, tensors=tensors), OUTLOOK, 4)
    a_tensor = 600 // len(tensors)
    assert [row.bytes_in_all for row in rows] == [1000, 1000 + a_tensor, 1000 + 3 * a_tensor]


def test_the_slower_of_storage_and_processor_is_named_and_what_is_not_known_is_said(plan: MergePlan) -> None:
    (row,) = on_nodes(plan, evolve(OUTLOOK, computing=900.0), 1)
    assert (row.bottleneck, row.seconds) == ("processor", pytest.approx(900 + START, abs=1))
    (row,) = on_nodes(plan, Outlook(None, None, None, None, None, None), 1)
    assert (row.seconds, row.storage, row.bottleneck) == (None, None, None)
    assert shown_nodes([row]).splitlines()[1].split() == ["1", "1000", "bytes", "?", "7", "bytes", "?", "?"]


def test_plan_shows_them_when_asked(
    models: SimpleNamespace, config: dict[str, Any], command: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    lines = command("plan", path, "--no-trial", "--nodes", "4").out.splitlines()
    assert lines[-4].split("  ")[0] == "nodes"
    assert [line.split()[0] for line in lines[-3:]] == ["1", "2", "4"]
    data = json.loads(command("plan", path, "--no-trial", "--nodes", "4", "--json").out)
    assert [row["nodes"] for row in data["nodes"]] == [1, 2, 4]
    assert "nodes" not in json.loads(command("plan", path, "--no-trial", "--json").out)
    assert command("plan", path, "--nodes", "0").status == 2
