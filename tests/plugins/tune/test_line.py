"""The line of λ: the base, and so many times what the start changes of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from modelmerger import MergeConfig, merge
from modelmerger_plugins.tune import MergeTuner
from modelmerger_plugins.tune.aside import FACTORS
from modelmerger_plugins.tune.evaluating import ByCoefficients, encoded, tokenizer_of
from modelmerger_plugins.tune.live.evaluator import Live, nats_of
from modelmerger_plugins.tune.measured import per_token
from modelmerger_plugins.tune.opened import opened, read
from modelmerger_plugins.tune.page import render
from transformers import AutoModelForCausalLM

from tests.plugins.tune.conftest import NAMES, Make, lines_of


def between(tiny: Path, folder: Path, factor: float) -> Any:
    """θ_base + factor·(θ − θ_base), of the merge in a folder, by torch alone."""
    merged, base = (AutoModelForCausalLM.from_pretrained(path).eval() for path in (folder, tiny / "base"))
    with torch.no_grad():
        for one, other in zip(merged.parameters(), base.parameters(), strict=True):
            one.copy_(other + factor * (one - other))
    return merged


@pytest.mark.parametrize("strategy", ["task_arithmetic", "ties", "tsv_m"])
def test_an_update_is_stretched_as_by_hand(config: Make, tiny: Path, tmp_path: Path, strategy: str) -> None:
    given = config(mark={"tune": [0, 3], "start": 1.0})
    given |= {"strategy": strategy, "options": {"scaling_factor": "matched"}}
    found = opened(read(given), 10)
    lines = encoded({name: lines_of(name, 5) for name in NAMES}, tokenizer_of(found))
    plain = {key: value for key, value in given.items() if key != "tune"}
    plain["models"] = [{"path": one["path"], "weight": 1.0} for one in given["models"]]
    merge(MergeConfig.from_dict({**plain, "output_path": str(tmp_path / "m")}))
    evaluators = [Live(found), *([ByCoefficients(found)] if strategy != "ties" else [])]
    for factor in (0.5, 1.25):
        wanted = per_token(nats_of(between(tiny, tmp_path / "m", factor), lines, 0, 4096), lines)
        for evaluator in evaluators:
            stretched = evaluator.stretched_nats(lines, found.space.start, factor)
            assert per_token(stretched, lines) == pytest.approx(wanted, rel=1e-5), factor


@pytest.mark.parametrize("strategy", ["task_arithmetic", "ties", "tsv_m"])
def test_report_page_and_json_say_where_the_optimum_lies(config: Make, strategy: str) -> None:
    pytest.importorskip("optuna")
    given = config(mark={"tune": [0, 3], "start": 1.0}, search={"steps": 1})
    given |= {"strategy": strategy, "options": {"scaling_factor": "matched"}}
    report = MergeTuner(given).tune()
    told = report.as_dict()
    assert told["scale"] == "matched"
    assert list(told["line"]) == [f"{factor:g} × start" for factor in FACTORS]
    assert told["line"]["1 × start"] == report.trials[0].value
    best = min(told["line"], key=told["line"].__getitem__)
    said = f"λ is best at {best}, a share {best.split()[0]} times that of 'matched'"
    assert said in str(report)
    assert f"{told['line'][best]:.4f}" in str(report)
    html = render(report).decode()
    assert "The line of λ" in html
    assert best in html


def test_a_number_is_said_as_what_it_would_be(config: Make) -> None:
    report = MergeTuner(config(search={"steps": 1})).tune()
    best = min(report.line, key=lambda one: one.value).name.split()[0]
    assert f"λ is best at {best} × start, {0.35 * float(best):g} in place of 0.35" in str(report)


def test_without_a_base_there_is_no_such_line(config: Make) -> None:
    given = config(search={"steps": 1})
    del given["base_model"]
    given |= {"strategy": "weighted", "options": {}}
    report = MergeTuner(given).tune()
    assert report.as_dict()["line"] == {}
    assert "λ" not in str(report)
