"""Several objectives on models: what is reported of them, and which numbers are merged."""

import json
from pathlib import Path
from typing import Any

import pytest
from modelmerger import ConfigError
from modelmerger.cli.process import main
from modelmerger_plugins.tune import MergeTuner
from modelmerger_plugins.tune.page import render
from modelmerger_plugins.tune.trials import pareto_of

from tests.plugins.tune.conftest import Make
from tests.plugins.tune.test_tuner import written

pytest.importorskip("optuna")
BOTH = [{"take": {"a": 1}}, {"take": {"b": 2, "c": 1}}]


def test_the_front_is_reported_and_the_best_of_the_first_objective_is_taken(config: Make) -> None:
    tuner = MergeTuner(config(objective=BOTH, search={"steps": 7}))
    report = tuner.tune()
    assert report.method == "nsga2"
    assert report.objectives == ["loss of a", "loss of 2 b + c"]
    for one in report.trials:
        gaps = [one.losses[name] / min(j.losses[name] for j in report.judged[2:]) for name in "abc"]
        assert len(one.values) == 2
        assert all(gap > 0 for gap in gaps)
    assert list(report.pareto) == pareto_of(report.trials)
    assert report.best == min(report.pareto, key=lambda one: one.costs)
    told = report.as_dict()
    page = (Path(__file__).parents[3] / "docs/reference/json.md").read_text(encoding="utf-8").partition("## tune")[2]
    assert [key for key in told if f"| `{key}` |" not in page] == []
    assert told["pareto"] == [{"step": one.number, "objectives": list(one.values)} for one in report.pareto]
    assert told["step"] == report.best.number
    text = str(report)
    assert f"{len(report.pareto)} of 8 are beaten in all objectives by none" in text
    assert "taken" in text
    html = render(report).decode()
    for one in report.pareto:
        for value in one.values:
            assert f"{value:.4f}" in html
    assert "Two objectives against each other" in html


def test_another_step_may_be_taken(config: Make, tmp_path: Path, capsys: Any) -> None:
    given = written(config(objective=BOTH, search={"steps": 5}), tmp_path / "c.yaml")
    assert main(["tune", given, "--no-merge", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    other = next(number for number in range(6) if number != first["step"])
    assert main(["tune", given, "--choose", str(other), "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["step"] == other
    rows = [json.loads(line) for line in (tmp_path / "out.tune" / "study.jsonl").read_text().splitlines()]
    vector = next(row["vector"] for row in rows if row.get("kind") == "trial" and row["number"] == other)
    assert list(second["numbers"].values()) == vector
    assert second["pareto"] == first["pareto"]
    assert second["output"] == str(tmp_path / "out")
    assert main(["tune", given, "--choose", "9"]) == 2
    assert "there is no step 9 to choose: the study has 0 to 5" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["gradient", "gap", "cma"])
def test_a_method_for_one_objective_is_refused(config: Make, method: str) -> None:
    with pytest.raises(ConfigError, match=r"several are given\. Use nsga2 or tpe"):
        MergeTuner(config(objective=["loss", "bits_per_byte"], search={"method": method})).tune()


def test_an_empty_list_of_objectives_is_refused(config: Make) -> None:
    with pytest.raises(ConfigError, match="got an empty list") as caught:
        MergeTuner(config(objective=[]))
    assert caught.value.problems[0].where == "tune.objective"


def test_losses_and_metrics_of_validators_do_not_mix(config: Make) -> None:
    with pytest.raises(ConfigError, match="has 'loss' beside 'perplexity'"):
        MergeTuner(config(objective=["loss", "perplexity"])).tune()


def test_a_function_may_give_several_objectives(config: Make) -> None:
    seen: list[tuple[float, float]] = []

    def objective(model: Any, _: Any) -> tuple[float, float]:
        weight = model.get_input_embeddings().weight.detach().float()
        seen.append((float(weight.norm()), -float(weight.abs().max())))
        return seen[-1]

    report = MergeTuner(config(search={"steps": 5}), objective=objective).tune()
    assert report.method == "nsga2"
    assert report.objectives == ["objective 1", "objective 2"]
    assert [one.values for one in report.trials] == seen[:6]
    assert report.best in report.pareto
