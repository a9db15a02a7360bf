"""`modelmerger validate`, and `merge` with a validation: what is printed, where, and with which status."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import directory_state
from inputs.tiny_models import TEXTS, arabic
from modelmerger import MergeConfig, merge, verify
from safetensors.torch import save_file

from tests.cli.test_cli_terminal import on_a_terminal
from tests.core.plugging import install

__all__ = ["arabic"]
Command = Callable[..., SimpleNamespace]
Distribution = Callable[..., Path]
BRIEF = ("--set", "validation.sample_size=2", "--set", "validation.max_new_tokens=4")
ACTS = """
import os, signal
from modelmerger import Finding, hookimpl

metrics = {{"acme": "lower"}}

@hookimpl
def validate_model():
    {body}
    yield Finding(metric="acme", value=3, evidence="nothing")
"""


@pytest.fixture
def data(arabic: SimpleNamespace, tmp_path: Path) -> dict[str, Any]:
    models = [{"path": str(arabic.a)}, {"path": str(arabic.b)}]
    return {"strategy": "weighted", "models": models, "output_path": str(tmp_path / "merged")}


@pytest.fixture
def config(data: dict[str, Any], tmp_path: Path) -> Path:
    (tmp_path / "merge.yaml").write_text(json.dumps(data))
    return tmp_path / "merge.yaml"


@pytest.fixture
def merged(data: dict[str, Any]) -> Path:
    return Path(merge(MergeConfig(**data)).output)


def test_a_model_is_measured_and_its_report_written_beside_it(command: Command, merged: Path) -> None:
    result = command("validate", merged, *BRIEF)
    assert (result.status, result.err) == (0, "")
    assert re.search(r"^  perplexity +all +[\d.]+ +per token$", result.out, re.MULTILINE)
    assert (merged / "validation.json").exists()
    assert f"saved in {merged}: README.md, report.html, validation.json" in result.out
    verify(merged)
    as_json = command("validate", merged, *BRIEF, "--json")
    saved = json.loads((merged / "validation.json").read_bytes())
    assert json.loads(as_json.out) == saved | {"directory": str(merged)}


@pytest.mark.usefixtures("tokenizers_here")
def test_a_directory_that_no_merge_wrote_is_measured_and_left_alone(command: Command, arabic: SimpleNamespace) -> None:
    before = directory_state(arabic.a)
    assert command("validate", arabic.a, *BRIEF).status == 0
    assert directory_state(arabic.a) == before


def test_an_adapter_is_told_its_base_without_a_config(
    command: Command, arabic: SimpleNamespace, tmp_path: Path
) -> None:
    weights = {"lora_A": torch.ones(2, 16), "lora_B": torch.ones(16, 2)}
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_file({f"{name}.{part}.weight": held for part, held in weights.items()}, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text(
        json.dumps(
            {
                "peft_type": "LORA",
                "r": 2,
                "lora_alpha": 2,
                "target_modules": ["q_proj"],
                "base_model_name_or_path": "far/away",
            }
        )
    )
    assert command("validate", adapter, *BRIEF).status == 3
    result = command("validate", adapter, *BRIEF, "--set", f"peft_config.base_model_path={arabic.a}")
    assert result.status == 0
    assert re.search(r"^  perplexity +all +[\d.]+ +per token$", result.out, re.MULTILINE)


@pytest.mark.usefixtures("tokenizers_here")
def test_against_puts_others_beside_it(command: Command, merged: Path, arabic: SimpleNamespace) -> None:
    arguments = ("--against", arabic.a, "--against", arabic.b, "--set", "validation.metrics=[perplexity, fluency]")
    result = command("validate", merged, *arguments, *BRIEF)
    assert result.status == 0, result.err
    assert result.out.splitlines()[1].split() == ["metric", "label", "merged", "a", "b", "unit"]
    assert "fluency: 2 continuations under a " in result.out


@pytest.mark.usefixtures("tokenizers_here")
def test_the_sources_and_the_validation_come_from_a_config(command: Command, merged: Path, config: Path) -> None:
    result = command("validate", merged, "--config", config, *BRIEF, "--set", "validation.metrics=[fluency]")
    assert result.status == 0, result.err
    assert re.search("fluency: 2 continuations under a .*, b ", result.out)
    alone = config.with_name("alone.yaml")
    alone.write_text("validation: {metrics: [fluency], sample_size: 2, max_new_tokens: 4}")
    result = command("validate", merged, "--config", alone)
    assert "fluency: not measured: no source models are given" in result.out


@pytest.mark.usefixtures("tokenizers_here")
def test_a_model_of_the_config_may_have_the_name_of_the_merged_one(command: Command, arabic: SimpleNamespace) -> None:
    result = command("validate", arabic.a, "--against", arabic.a, *BRIEF)
    assert result.status == 0, result.err
    heading, first, *_ = [re.split(r"  +", line.strip()) for line in result.out.splitlines()[1:]]
    assert heading == ["metric", "label", "a (merged)", "a", "unit"]
    assert first[2] == first[3]


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("{missing}",), 3, "{missing}: does not exist. Give the directory of a model."),
        (("{file}",), 3, "{file}: is not a directory, and transformers loads models from directories alone."),
        (("{empty}",), 3, "{empty}: has no config.json, so transformers cannot load it."),
        (
            ("{merged}", "--set", "validation.metrics=[perplexty]"),
            2,
            "validation.metrics: no validator is named 'perplexty'; did you mean 'perplexity'?",
        ),
        (
            ("{merged}", "--set", "validation.thresholds.perplexty=3"),
            2,
            ("validation.thresholds: no metric is named 'perplexty', did you mean 'perplexity'? "
            "(perplexity finds perplexity, bits_per_byte)"),
        ),
        (("{merged}", "--set", "sample_size=3"), 2, "config: unknown key 'sample_size' in here. Write it under validation"),
        (("{merged}", "--set", "validation.sampel_size=3"), 2, "validation: unknown key 'sampel_size', did you mean 'sample_size'?"),
        (("{merged}", "--set", "validation.dataset={missing}"), 3, "{missing}: cannot be opened: No such file or directory."),
        (("{merged}", "--against", "{missing}", "--set", "validation.sample_size=0"), 2, "validation.sample_size: must be in [1, 2.14748e+09], got 0"),
        ((), 2, "Missing argument 'MODEL'. See modelmerger validate --help"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(
    command: Command, merged: Path, tmp_path: Path, arguments: tuple[str, ...], status: int, sentence: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    places = {name: tmp_path / name for name in ("missing", "file", "empty")} | {"merged": merged}
    result = command("validate", *(argument.format(**places) for argument in arguments))
    assert (result.status, result.out, result.err) == (status, "", f"error: {sentence.format(**places)}\n")


@pytest.mark.usefixtures("tokenizers_here")
def test_a_crossed_threshold_is_status_8_and_the_report_is_there(command: Command, merged: Path) -> None:
    result = command("validate", merged, *BRIEF, "--set", "validation.thresholds.perplexity=1.5")
    assert result.status == 8
    assert re.fullmatch(rf"error: {merged}: perplexity is [\d.]+, worse than 1.5\.\n", result.err)
    assert json.loads((merged / "validation.json").read_bytes())["passed"] is False
    assert "✗" in result.out


@pytest.mark.usefixtures("tokenizers_here")
def test_merge_validates_where_the_config_says_so(command: Command, config: Path, data: dict[str, Any]) -> None:
    result = command("merge", config, *BRIEF, "--set", f"validation.test_prompts=[{TEXTS[0]}]")
    assert (result.status, result.err) == (0, "")
    merged, validated, *_ = result.out.splitlines()
    assert merged.startswith("merged 2 models (weighted)")
    assert validated == f"validation of {data['output_path']}: no threshold set"
    assert TEXTS[0] in result.out
    as_json = json.loads(command("merge", config, "--overwrite", *BRIEF, "--json").out)
    assert as_json["validation"]["metrics"].keys() == {"perplexity", "bits_per_byte"}
    assert as_json["validation"]["passed"] is None
    without = json.loads(command("merge", config, "--overwrite", "--json").out)
    assert without["validation"] is None
    assert not (Path(data["output_path"]) / "validation.json").exists()


@pytest.mark.usefixtures("tokenizers_here")
def test_a_threshold_that_a_merge_crosses_leaves_the_model(
    command: Command, config: Path, data: dict[str, Any]
) -> None:
    result = command("merge", config, *BRIEF, "--set", "validation.thresholds.perplexity=1.5")
    assert result.status == 8
    place = re.escape(data["output_path"])
    said = rf"error: the merged model is at {place}; its validation: perplexity is [\d.]+, worse than 1.5\.\n"
    assert re.fullmatch(said, result.err)
    verify(data["output_path"])


def test_a_dataset_that_is_missing_stops_a_merge_before_it_begins(
    command: Command, config: Path, data: dict[str, Any], tmp_path: Path
) -> None:
    result = command("merge", config, "--set", f"validation.dataset={tmp_path}/none.txt")
    assert result.status == 3
    assert result.err == f"error: {tmp_path}/none.txt: cannot be opened: No such file or directory.\n"
    assert not os.path.exists(data["output_path"])


def test_a_validator_that_breaks_after_a_merge_leaves_the_model(
    distribution: Distribution, command: Command, config: Path, data: dict[str, Any]
) -> None:
    install(distribution, [("validator", "acme", ACTS.format(body="1 / 0"))])
    result = command("merge", config, "--set", "validation.metrics=[acme]")
    assert result.status == 7
    first, second = result.err.splitlines()
    assert first == f"error: the merged model is at {data['output_path']}; its validation failed."
    said = "error: validator 'acme' from acme-merge 1.0 raised ZeroDivisionError in validate_model: division by zero"
    assert re.fullmatch(rf"{said} \(.*\.py, line 9\)", second)
    verify(data["output_path"])


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_validation_leaves_the_model_and_says_so(
    distribution: Distribution, command: Command, config: Path, data: dict[str, Any], sent: signal.Signals, status: int
) -> None:
    install(distribution, [("validator", "acme", ACTS.format(body=f"os.kill(os.getpid(), {sent.value})"))])
    result = command("merge", config, "--set", "validation.metrics=[acme]")
    assert result.status == status
    assert result.err == (
        f"error: the merged model is at {data['output_path']}; its validation was interrupted. "
        "Run modelmerger validate to validate it again.\n"
    )
    verify(data["output_path"])


def test_a_terminal_sees_the_steps_and_a_table(merged: Path, arabic: SimpleNamespace) -> None:
    prompts = f"validation.test_prompts={{egyptian: [{TEXTS[1]}]}}"
    status, screen = on_a_terminal("validate", merged, *BRIEF, "--set", prompts, "--against", arabic.a)
    assert status == 0, screen
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen)
    assert "validating merged: perplexity" in plain
    assert "validating a: dialect_prompts" in plain
    assert re.search(r"perplexity +all +[\d.]+ +[\d.]+ +per token", plain)
    assert f"\u2068{TEXTS[1]}\u2069 (egyptian)" in plain
    end = " ".join(plain.split("validation of ")[-1].split())  # of which the terminal breaks long lines
    assert re.search(r": no threshold set saved in", end)
