import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger import MergeConfig, MergePlan, ModelMerger
from modelmerger.planning.outlook import rates as outlook
from modelmerger.planning.outlook.rates import Outlook, look_ahead


@pytest.fixture
def plan(models: SimpleNamespace, config: dict[str, Any]) -> MergePlan:
    return ModelMerger(MergeConfig(**config)).plan()


def test_free_disk_and_rates_are_measured_where_the_output_will_be(plan: MergePlan, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    disk = os.statvfs(tmp_path)

    found = look_ahead(plan, tmp_path / "merged")

    assert found.folder == str(tmp_path)
    assert found.enough
    assert found.free == pytest.approx(disk.f_bavail * disk.f_frsize, rel=0.2)
    assert found.read_rate
    assert found.seconds
    assert found.seconds > outlook.START
    said = rf"free     {re.escape(f'{outlook.size(found.free or 0)} in {tmp_path}')}: enough\ntime     about \d+ s \(reading "
    assert re.search(said, str(found))
    assert sorted(tmp_path.iterdir()) == before


def test_a_merge_that_moves_more_takes_longer(plan: MergePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attrs import evolve

    monkeypatch.setattr(outlook, "_read_rate", lambda _: 1e9)
    monkeypatch.setattr(outlook, "_write_rate", lambda *_: 2e9)
    monkeypatch.setattr(outlook, "digest_of_bytes", lambda _: "")  # takes no time

    def seconds(**changes: Any) -> float:
        return look_ahead(evolve(plan, **changes), tmp_path / "merged").seconds or 0

    start = outlook.START + outlook.A_TENSOR * len(plan.tensors)
    assert seconds(bytes_read=10**12, bytes_written=10**12) == pytest.approx(start + 1000)  # reading is the slowest
    assert seconds(bytes_read=10**9, bytes_written=10**12) == pytest.approx(start + 500, rel=0.01)  # writing
    assert seconds(bytes_read=10**9, bytes_written=10**9, workers=10**6) == pytest.approx(start + 1)


def test_a_disk_too_small_is_said(plan: MergePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=1 << 20, f_frsize=1))

    found = look_ahead(plan, tmp_path / "merged")

    assert found.enough is False
    assert "1.0 MiB in" in str(found)
    assert "NOT ENOUGH for this merge" in str(found)


@pytest.mark.parametrize("output", [None, Path("no/such/folder/merged")])
def test_without_a_folder_nothing_is_known(plan: MergePlan, output: Path | None) -> None:
    assert look_ahead(plan, output) == Outlook(None, None, None, None, None, None)
    assert str(look_ahead(plan, output)) == ""


def test_where_no_nameless_file_can_be_made_the_time_is_left_out(
    plan: MergePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")

    found = look_ahead(plan, tmp_path / "merged")

    assert (found.write_rate, found.seconds) == (None, None)
    assert "time" not in str(found)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1.4, "1 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (1e6, "277.8 h")],
)
def test_durations_are_in_the_unit_that_one_would_say(seconds: float, said: str) -> None:
    found = Outlook("/", 2 << 30, True, 1 << 30, 1 << 30, seconds)
    assert str(found).splitlines()[1].startswith(f"time     about {said} (reading ")
