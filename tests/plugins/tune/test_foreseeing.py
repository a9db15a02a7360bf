"""What `modelmerger tune --plan` says, beside what a search does."""

import json
import resource
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from modelmerger import ConfigError
from modelmerger.cli.process import main
from modelmerger_plugins.tune import MergeTuner
from modelmerger_plugins.tune.evaluating import ByCoefficients
from modelmerger_plugins.tune.foreseeing import Pace, Passes, batches_of
from modelmerger_plugins.tune.measured import Lines
from modelmerger_plugins.tune.opened import opened, read

from tests.plugins.tune.conftest import NAMES, Make


def test_the_pace_of_batches_is_a_line_through_two() -> None:
    pace = Pace.through({100: 2.0, 300: 4.0})
    assert pace.of([100, 300]) == pytest.approx(6.0)
    assert pace.of([200, 0]) == pytest.approx(4.0)
    assert Pace.through({100: 2.0}).of([100, 50]) == pytest.approx(3.0)
    assert Pace.through({100: 5.0, 300: 4.0}).of([100, 300]) == pytest.approx(8.0)  # noise: never less for more
    assert Pace.through({100: 1.0, 300: 6.0}).of([300, 10]) == pytest.approx(6.2)  # nor below 0 for few


def test_batches_are_counted_with_padding() -> None:
    lines = Lines({"a": [[1] * 4, [1] * 9, [1] * 3], "b": [[1]]}, {"a": 0, "b": 0})
    assert batches_of(lines, 10) == [("a", [2, 0], 10), ("a", [1], 10), ("b", [0], 2)]


@pytest.mark.parametrize("method", ["gradient", "gap"])
def test_passes_are_those_of_a_search(config: Make, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Counted as a search asks for them."""
    given = config(30, search={"method": method, "steps": 3})
    found: Counter[tuple[str, int]] = Counter()
    for name in ("nats", "slopes", "stretched_nats"):
        plain = getattr(ByCoefficients, name)

        def counted(self: Any, lines: Lines, *given: Any, name: str = name, plain: Any = plain) -> Any:
            found[name.removeprefix("stretched_"), len(lines.tokens["a"])] += 1
            return plain(self, lines, *given)

        monkeypatch.setattr(ByCoefficients, name, counted)
    sources = ByCoefficients.source_nats

    def counted_source(self: Any, lines: Lines, model: int) -> Any:
        found["nats", len(lines.tokens["a"])] += 1
        return sources(self, lines, model)

    monkeypatch.setattr(ByCoefficients, "source_nats", counted_source)
    wanted = Passes.of(opened(read(given), 30), method)
    report = MergeTuner(given).tune()
    kept = 4 - len(report.worth)  # layers that stay at the start are not put back to it
    assert found["slopes", 30] == wanted.steps
    assert found["nats", 30] == wanted.tune - kept
    assert found["nats", 12] == wanted.test


def test_a_plan_does_a_step_and_writes_nothing(config: Make, tmp_path: Path, capsys: Any) -> None:
    given = config(30, search={"steps": 7})
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    assert main(["tune", str(tmp_path / "c.yaml"), "--plan", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sorted(tmp_path.rglob("*")) == before
    assert (told["method"], told["metric"], told["numbers"], told["steps"]) == ("gradient", "loss", 12, 7)
    assert told["lines"] == dict.fromkeys(NAMES, 30)
    assert told["test_lines"] == dict.fromkeys(NAMES, 12)
    assert set(told["per"].values()) == {"layer"}
    assert 0 < told["step_seconds"] * 7 < told["seconds"]
    assert 50 << 20 < told["memory"] <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    page = (Path(__file__).parents[3] / "docs/reference/json.md").read_text(encoding="utf-8")
    assert [key for key in told if f"| `{key}` |" not in page.partition("## tune --plan")[2]] == []
    assert main(["tune", str(tmp_path / "c.yaml"), "--plan"]) == 0
    said = capsys.readouterr().out
    assert "12 numbers (per layer) for loss, gradient, 7 steps" in said
    assert "memory " in said
    assert "time     about " in said
    assert main(["tune", str(tmp_path / "c.yaml"), "--plan", "--resume"]) == 2


def test_a_vector_is_tried_where_there_is_no_gradient(config: Make, tmp_path: Path) -> None:
    given = config(search={"method": "tpe", "steps": 9})
    plan = MergeTuner(given).plan()
    assert (plan.method, plan.steps) == ("tpe", 9)
    assert plan.seconds > 10 * plan.step_seconds
    assert "one vector was tried" in str(plan)


def test_a_function_is_called_once(config: Make) -> None:
    seen: list[Any] = []

    def objective(model: Any, _: Any) -> float:
        seen.append(model)
        return 1.0

    plan = MergeTuner(config(search={"steps": 9}), objective=objective).plan()
    assert len(seen) == 1
    assert plan.metric == "objective"
    assert plan.seconds == pytest.approx(12 * plan.step_seconds)


def test_what_ends_a_search_at_once_ends_its_plan(config: Make) -> None:
    with pytest.raises(ConfigError):
        MergeTuner(config(constraints=["gap(nobody) <= 0.05"])).plan()
