"""A search from a config to a merged model."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from modelmerger import ConfigError, MergeConfig, OutputError, merge, verify
from modelmerger.cli.process import main
from modelmerger_plugins.tune import MergeTuner
from modelmerger_plugins.tune.evaluating import encoded
from modelmerger_plugins.tune.live.evaluator import nats_of
from modelmerger_plugins.tune.measured import per_token
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.plugins.tune.conftest import NAMES, Make, lines_of


def written(config: dict[str, Any], path: Path) -> str:
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("lines", "per", "count"), [(12, "model", 3), (30, "layer", 12), (100, "tensor", 78)])
def test_the_merged_model_has_the_loss_that_the_search_saw(
    config: Make, tmp_path: Path, lines: int, per: str, count: int
) -> None:
    tuner = MergeTuner(config(lines, search={"steps": 8}))
    report = tuner.tune()
    assert set(report.per.values()) == {per}
    assert len(report.coordinates) == len(report.best.vector) == count
    assert report.best.value < report.trials[0].value
    tuner.merge()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    own = encoded({name: lines_of(name, lines) for name in NAMES}, tokenizer)
    assert per_token(nats_of(model, own, 0, 4096), own) == pytest.approx(dict(report.best.losses), rel=1e-4)
    again = merge(
        MergeConfig.from_file(tmp_path / "out.tune" / "tuned.yaml").as_dict() | {"output_path": str(tmp_path / "b")}
    )
    files = [Path(folder) / "model.safetensors" for folder in (again.output, tmp_path / "out")]
    assert files[0].read_bytes() == files[1].read_bytes()
    verify(tmp_path / "out")


def test_the_manifest_names_the_study_and_the_texts(config: Make, tmp_path: Path) -> None:
    tuner = MergeTuner(config())
    report = tuner.tune()
    tuner.merge()
    page = (Path(__file__).parents[3] / "docs/reference/json.md").read_text(encoding="utf-8").partition("## tune")[2]
    assert [key for key in report.as_dict() if f"| `{key}` |" not in page] == []
    tuned = json.loads((tmp_path / "out" / "modelmerger.json").read_text())["config"]["tuned"]
    assert tuned["study"] == report.study
    assert set(tuned["texts"]) == {f"{part}/{name}" for part in ("tune", "test") for name in NAMES}
    assert tuned["search"]["search"] == {"steps": 3}


def test_a_search_that_was_ended_goes_on_to_the_same_end(config: Make, tmp_path: Path) -> None:
    whole = MergeTuner(config()).tune(tmp_path / "whole")
    given = config()

    class EndedError(Exception):
        pass

    def ending(done: int, _: int, __: float) -> None:
        if done == 2:
            raise EndedError

    with pytest.raises(EndedError):
        MergeTuner(given).tune(progress=ending)
    study = tmp_path / "out.tune" / "study.jsonl"
    kept = study.read_bytes()
    study.write_bytes(kept + b'{"kind": "tri')  # as a kill leaves it
    with pytest.raises(OutputError, match="--resume"):
        MergeTuner(given).tune()
    resumed = MergeTuner(given).tune(resume=True)
    assert study.read_bytes().startswith(kept)
    assert [trial.vector for trial in resumed.trials] == [trial.vector for trial in whole.trials]
    assert resumed.best.losses == whole.best.losses
    given["options"]["scaling_factor"] = 0.5
    with pytest.raises(OutputError, match="config changed"):
        MergeTuner(given).tune(resume=True)


def test_an_interruption_gives_the_best_so_far(config: Make) -> None:
    def interrupting(done: int, _: int, __: float) -> None:
        if done == 3:
            raise KeyboardInterrupt

    report = MergeTuner(config()).tune(progress=interrupting)
    assert report.interrupted
    assert len(report.trials) == 3
    assert report.best.value == min(trial.value for trial in report.trials)


def test_the_one_pass_rule_gives_weights_in_proportion_to_gaps(config: Make) -> None:
    report = MergeTuner(config(search={"method": "gap"})).tune()
    start = report.trials[0]
    judged = {one.name: one for one in report.judged}
    assert len(report.trials) == 2
    assert sum(report.trials[1].vector) == pytest.approx(1.2)
    best = json.loads(
        next(line for line in Path(report.folder, "study.jsonl").read_text().splitlines() if '"model": "a"' in line)
    )
    assert best["part"] == "tune"
    assert judged["tuned"].gain is None
    assert start.vector == (0.4, 0.4, 0.4)


def test_constraints_that_nothing_meets_leave_a_config_and_no_model(config: Make, tmp_path: Path, capsys: Any) -> None:
    given = written(config(constraints=["gap(*) <= -0.9"]), tmp_path / "c.yaml")
    assert main(["tune", given]) == 8
    assert (tmp_path / "out.tune" / "tuned.yaml").exists()
    assert not (tmp_path / "out").exists()
    assert "no numbers met all constraints" in capsys.readouterr().err


def test_a_constraint_holds_back_what_the_objective_wants(config: Make, tmp_path: Path) -> None:
    free = MergeTuner(config(30, objective={"take": {"a": 1}}, search={"steps": 8})).tune(tmp_path / "free")
    limit = 1.05 * free.trials[0].losses["b"]
    bound = f"loss(b) <= {limit}"
    held = MergeTuner(config(30, objective={"take": {"a": 1}}, search={"steps": 8}, constraints=[bound])).tune(
        tmp_path / "held"
    )
    assert free.best.losses["b"] > limit
    assert held.feasible
    assert held.best.losses["b"] <= limit
    assert held.best.value < held.trials[0].value


@pytest.mark.parametrize("command", ["merge", "check", "plan"])
def test_other_commands_end_with_2_and_name_this_one(config: Make, tmp_path: Path, capsys: Any, command: str) -> None:
    assert main([command, written(config(), tmp_path / "c.yaml")]) == 2
    assert "modelmerger tune" in capsys.readouterr().err


def test_few_lines_are_warned_of_and_never_fitted_finely(config: Make) -> None:
    report = MergeTuner(config(6, mark={"tune": [0, 3], "start": 0.4, "per": "tensor"})).tune()
    assert set(report.per.values()) == {"model"}
    assert any("too few" in note for note in report.notes)
    assert any("not per tensor" in note for note in report.notes)


def test_the_start_is_recommended_where_nothing_is_gained(config: Make) -> None:
    report = MergeTuner(config(search={"steps": 1, "rate": 1e-6})).tune()
    assert not report.better
    assert "no better than the start" in report.verdict
    assert "no better than the start" in Path(report.folder, "tuned.yaml").read_text()


def test_any_function_of_the_model_may_be_made_small(config: Make) -> None:
    pytest.importorskip("optuna")
    seen: list[float] = []

    def objective(model: Any, tokenizer: Any) -> float:
        assert tokenizer.bos_token_id == 0
        seen.append(float(model.get_input_embeddings().weight.detach().float().norm()))
        return seen[-1]

    report = MergeTuner(config(), objective=objective).tune()
    assert [trial.value for trial in report.trials] == seen[:4]
    assert report.best.value == min(seen[:4])


def test_trials_of_whole_models_are_the_same_function(config: Make, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    wanted = MergeTuner(config(search={"steps": 1})).tune(tmp_path / "gradient")
    for method in ("tpe", "cma"):
        report = MergeTuner(config(search={"method": method, "steps": 2})).tune(tmp_path / method)
        assert len(report.trials) == 3, method
        assert report.trials[0].losses == pytest.approx(wanted.trials[0].losses, rel=1e-4), method


def test_a_strategy_without_a_gradient_says_so(config: Make) -> None:
    given: dict[str, Any] = config(search={"method": "gradient"})
    given["strategy"] = "ties"
    with pytest.raises(ConfigError, match="there is no gradient"):
        MergeTuner(given).tune()


def test_numbers_by_pattern_are_written_where_the_pattern_was(config: Make) -> None:
    given = config(100)
    given["models"][0]["weight"] = {"*.mlp.*": {"tune": [0, 3], "start": 0.4}, "default": 1.0}
    report = MergeTuner(given).tune()
    weights = report.config["models"][0]["weight"]
    assert "*.mlp.*" not in weights
    assert weights["default"] == 1.0
    assert sum(".mlp." in name for name in weights) == 6
    assert len(weights) == 7
    assert report.per["models[0].weight.*.mlp.*"] == "tensor"


def test_bounds_that_an_option_may_not_have_are_refused_before_the_search(config: Make) -> None:
    given: dict[str, Any] = config()
    given["strategy"] = "ties"
    given["options"] = {"density": {"tune": [0, 1]}}
    with pytest.raises(ConfigError, match="smallest value that 'tune' allows") as caught:
        MergeTuner(given)
    assert caught.value.problems[0].where == "options.density"
