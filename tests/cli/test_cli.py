"""Every command does what its help says, for people and for machines."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import write_model
from safetensors.torch import load_file

Command = Callable[..., SimpleNamespace]
COMMANDS = ("check", "merge", "plan", "plugins", "verify")


def test_help_lists_every_command(command: Command) -> None:
    result = command("--help")
    assert (result.status, result.err) == (0, "")
    assert all(f"\n  {name} " in result.out for name in COMMANDS)
    assert command("-h").out == result.out
    listed = result.out.partition("Commands:")[2]
    assert [cut for cut in ("...", "…") if cut in listed] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_json_and_debug(command: Command, name: str) -> None:
    result = command(name, "--help")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith(f"Usage: modelmerger {name}")
    assert "--json" in result.out
    assert "--debug" in result.out


def test_version_is_that_of_the_distribution(command: Command) -> None:
    assert command("--version").out == f"modelmerger {version('modelmerger')}\n"


def test_merge_writes_the_model_and_says_so_in_one_line(command: Command, path: Path, models: SimpleNamespace) -> None:
    result = command("merge", path)
    note = f"note: {models.a}: has no tokenizer files, so the merged model gets none.\n"
    assert (result.status, result.err) == (0, note)
    (line,) = result.out.splitlines()
    assert line.startswith(f"merged 2 models (weighted) into {models.output}: 7 tensors, ")
    merged = load_file(models.output / "model.safetensors")
    expected = (
        0.6 * models.tensors["a"]["model.norm.weight"].float() + 0.4 * models.tensors["b"]["model.norm.weight"].float()
    )
    torch.testing.assert_close(merged["model.norm.weight"].float(), expected, rtol=2**-8, atol=0)


def test_merge_reads_json_as_well(command: Command, models: SimpleNamespace, config: dict[str, Any]) -> None:
    file = models.folder / "merge.json"
    file.write_text(json.dumps(config))
    assert command("merge", file).status == 0
    assert models.output.is_dir()


def test_output_wins_over_the_config(command: Command, path: Path, models: SimpleNamespace) -> None:
    elsewhere = models.folder / "elsewhere"
    assert command("merge", path, "--output", elsewhere).status == 0
    assert elsewhere.is_dir()
    assert not models.output.exists()


def test_an_output_that_exists_is_replaced_with_overwrite_alone(
    command: Command, path: Path, models: SimpleNamespace
) -> None:
    assert command("merge", path).status == 0
    before = (models.output / "model.safetensors").read_bytes()
    again = command("merge", path, "--set", "models[0].weight=0.1")
    assert again.status == 4
    assert f"{models.output}: exists already" in again.err
    assert (models.output / "model.safetensors").read_bytes() == before
    assert command("merge", path, "--set", "models[0].weight=0.1", "--overwrite").status == 0
    assert (models.output / "model.safetensors").read_bytes() != before
    assert command("merge", path, "--set", "options.overwrite=true").status == 0
    assert (models.output / "model.safetensors").read_bytes() == before


def test_merge_json_is_the_report(command: Command, path: Path, models: SimpleNamespace) -> None:
    result = command("merge", path, "--json")
    report = json.loads(result.out)
    assert result.status == 0
    assert report["output"] == str(models.output)
    assert report["models"] == ["a", "b"]
    assert report["tensors"] == 7
    assert report["bytes_written"] == (models.output / "model.safetensors").stat().st_size
    assert report["notes"] == [
        {"severity": "note", "message": f"{models.a}: has no tokenizer files, so the merged model gets none."}
    ]


def test_check_says_yes_with_its_notes_and_writes_nothing(
    command: Command, path: Path, models: SimpleNamespace
) -> None:
    before = sorted(models.folder.rglob("*"))
    result = command("check", path)
    assert (result.status, result.out) == (0, "the models can be merged\n")
    assert result.err == f"note: {models.a}: has no tokenizer files, so the merged model gets none.\n"
    found = json.loads(command("check", path, "--json").out)
    assert found["compatible"] is True
    assert [note["severity"] for note in found["notes"]] == ["note"]
    assert sorted(models.folder.rglob("*")) == before


def test_check_says_no_for_each_cause_of_what_does_not_fit(
    command: Command, path: Path, models: SimpleNamespace
) -> None:
    odd = {name: torch.zeros(3, 3) for name in models.tensors["b"]}  # matrices, vectors, a scalar, a tensor of rank 4
    write_model(models.b, odd)
    result = command("check", path)
    assert (result.status, result.out) == (3, "")
    assert len(result.err.splitlines()) == 4
    assert all(line.startswith("error: ") and "model." in line for line in result.err.splitlines())
    as_json = command("check", path, "--json")
    assert (as_json.status, as_json.err) == (3, result.err)
    error = json.loads(as_json.out)["error"]
    assert (error["kind"], error["exit_status"]) == ("ModelCompatibilityError", 3)
    assert [f"error: {problem['message']}" for problem in error["problems"]] == result.err.splitlines()


def test_plan_says_what_would_be_read_and_written(command: Command, path: Path, models: SimpleNamespace) -> None:
    result = command("plan", path, "--no-trial")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith(f"weighted of 2 models\n  a: weight 0.6, gives config and tokenizer ({models.a})\n")
    for part in ("tensors  7 merged", "output   1 file", "reads ", "memory ", "disk ", "free ", "enough"):
        assert part in result.out
    plan = json.loads(command("plan", path, "--no-trial", "--json").out)
    assert [tensor["coefficients"] for tensor in plan["tensors"]] == [[0.6, 0.4]] * 7
    assert command("merge", path).status == 0
    assert plan["files"][0]["size"] == (models.output / "model.safetensors").stat().st_size


def test_plan_of_a_merge_without_output_leaves_out_the_free_disk(command: Command, path: Path) -> None:
    result = command("plan", path, "--no-trial", "--set", "output_path=")
    assert result.status == 0
    assert "free " not in result.out


def test_verify_finds_what_changed(command: Command, path: Path, models: SimpleNamespace) -> None:
    command("merge", path)
    sound = command("verify", models.output)
    assert (sound.status, sound.err) == (0, "")
    assert sound.out.startswith(f"{models.output}: 2 files, ")
    assert json.loads(command("verify", models.output, "--json").out)["files"] == 2
    weights = models.output / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    damaged = command("verify", models.output, "--json")
    assert damaged.status == json.loads(damaged.out)["error"]["exit_status"] == 3
    assert damaged.err.startswith(f"error: {weights}: ")


def test_verify_of_what_no_merge_wrote(command: Command, models: SimpleNamespace) -> None:
    assert command("verify", models.a).err == (
        f"error: {models.a}: has no modelmerger.json, so no merge wrote it. Give a merged model.\n"
    )
    nowhere = command("verify", models.folder / "nowhere")
    assert nowhere.status == 3
    assert (
        nowhere.err
        == f"error: {models.folder / 'nowhere'}: is not a directory. Give the directory of a merged model.\n"
    )


def test_plugins_lists_what_is_installed_by_kind(
    command: Command, distribution: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(
        "acme-merge",
        "1.0",
        "[modelmerger.strategies]\ntrims = acme_never_imported\n[modelmerger.validators]\nbleu = acme_never_imported\n",
    )
    distribution("other-merge", "2.0", "[modelmerger.strategies]\nslerp = acme_never_imported\n")
    monkeypatch.setenv("MODELMERGER_DISABLE_PLUGINS", "bleu,licenses")
    result = command("plugins")
    assert (result.status, result.err) == (0, "")
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    own = f"modelmerger {version('modelmerger')}"
    assert lines[0] == "strategies:"
    assert lines.index("strategies:") < lines.index("validators:") < lines.index("plugins:")
    assert "trims acme-merge 1.0" in lines
    assert f"weighted {own}" in lines
    assert f"slerp {own} (clash)" in lines
    assert "slerp other-merge 2.0 (clash)" in lines
    assert "bleu acme-merge 1.0 (off: MODELMERGER_DISABLE_PLUGINS names it)" in lines
    assert f"licenses {own} (off: MODELMERGER_DISABLE_PLUGINS names it)" in lines
    rows = json.loads(command("plugins", "--json").out)
    assert {"kind": "validator", "name": "bleu", "distribution": "acme-merge", "version": "1.0", "on": False} in rows
    assert {"kind": "strategy", "name": "trims", "distribution": "acme-merge", "version": "1.0", "on": True} in rows
    assert sum(row["on"] for row in rows) == len(rows) - 2
    assert lines[lines.index(f"weighted {own}") + 1] == "Weighted average of the models."


TRIMS = '''
"""Trims models, \x1b[31mred.

And more."""
from attrs import field, frozen
from modelmerger import Traits, hookimpl, varying
traits = Traits()

@frozen
class Options:
    kept: float
    """How much is kept,
    of each model."""
    parts: list[str] = field(factory=list)
    share: float = varying(default=0.25)

@frozen
class ModelOptions:
    mode: str = "all"
    """Which way."""

@hookimpl
def find_coefficients(weights):
    return weights
'''


def test_plugins_describes_one_by_its_name_and_imports_no_other(
    command: Command, distribution: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = "[modelmerger.strategies]\ntrims = acme_trims\n[modelmerger.validators]\ntrims = acme_breaks\n"
    distribution("acme-merge", "1.0", entries, acme_trims=TRIMS, acme_breaks='"""Breaks."""\n1 / 0')
    broken = command("plugins", "trims")
    assert (broken.status, broken.out) == (7, "")
    assert "validator 'trims' from acme-merge 1.0 could not be imported: ZeroDivisionError" in broken.err

    distribution("other", "2.0", "[modelmerger.strategies]\ncuts = acme_trims\n")
    result = command("plugins", "cuts")
    assert (result.status, result.err) == (0, "")
    assert result.out.splitlines() == [
        "strategy cuts, other 2.0",
        "  Trims models, \\x1b[31mred.",
        "options:",
        "  kept   (must be given)  How much is kept, of each model.",
        "  parts  []",
        "  share  0.25",
        "keys of each of models:",
        "  mode  all  Which way.",
    ]
    (told,) = json.loads(command("plugins", "cuts", "--json").out)
    assert told["options"][0] == {"name": "kept", "description": "How much is kept, of each model."}
    assert told["options"][2] == {"name": "share", "description": "", "default": 0.25}
    assert told["model_options"] == [{"name": "mode", "description": "Which way.", "default": "all"}]
    assert (told["kind"], told["distribution"], told["version"], told["on"]) == ("strategy", "other", "2.0", True)

    monkeypatch.setenv("MODELMERGER_DISABLE_PLUGINS", "acme-merge")
    assert command("plugins", "trims").out.splitlines() == [
        "strategy trims, acme-merge 1.0  (off: MODELMERGER_DISABLE_PLUGINS names it)",
        "  Trims models, \\x1b[31mred.",
        "",
        "validator trims, acme-merge 1.0  (off: MODELMERGER_DISABLE_PLUGINS names it)",
        "  Breaks.",
    ]


def test_plugins_describes_validators_with_their_metrics(command: Command) -> None:
    lines = command("plugins", "perplexity").out.splitlines()
    assert lines[0] == f"validator perplexity, modelmerger {version('modelmerger')}"
    assert lines[2:] == ["metrics:", "  perplexity     lower is better", "  bits_per_byte  lower is better"]


def test_plugins_are_checked_all_at_once(command: Command, distribution: Callable[..., Path]) -> None:
    own = f"modelmerger {version('modelmerger')}"
    assert command("plugins", "--check").out.endswith(" plugins can be used\n")
    assert json.loads(command("plugins", "weighted", "--check", "--json").out)["usable"] == [
        f"strategy 'weighted' from {own}"
    ]
    points = "[modelmerger.plugins]\nbroken = acme_broken\nodd = acme_odd\n"
    distribution("acme-merge", "1.0", points, acme_broken="1 / 0", acme_odd="Options = 3")
    result = command("plugins", "--check")
    assert result.status == 7
    assert result.err.splitlines() == [
        "error: plugin 'broken' from acme-merge 1.0 could not be imported: ZeroDivisionError: division by zero. "
        "MODELMERGER_DISABLE_PLUGINS=broken switches it off.",
        "error: plugin 'odd' from acme-merge 1.0: the options must be an attrs class, got 3. Write @frozen, of attrs, "
        "above 'Options'. MODELMERGER_DISABLE_PLUGINS=odd switches it off.",
    ]


def test_plugins_suggests_a_name(command: Command) -> None:
    result = command("plugins", "wieghted")
    assert (result.status, result.err) == (2, "error: no plugin is named 'wieghted', did you mean 'weighted'?\n")
    assert "no plugin is named 'zzzz'. 'modelmerger plugins' lists" in command("plugins", "zzzz").err


def test_a_plan_warns_of_what_a_check_warns_of(models: SimpleNamespace, command: Command) -> None:
    for name in ("a", "b"):
        (models.folder / name / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"x": 0, name: 1}}}))
    path = models.folder / "merge.yaml"
    path.write_text(f"strategy: weighted\nmodels: [{{path: {models.a}}}, {{path: {models.b}}}]\n")

    checked, planned, as_json = (
        command("check", path),
        command("plan", path, "--no-trial"),
        command("plan", path, "--no-trial", "--json"),
    )

    warnings = [line for line in checked.err.splitlines() if line.startswith("warning: ")]
    assert warnings
    assert planned.err.splitlines() == warnings
    notes = json.loads(as_json.out)["notes"]
    assert [f"{note['severity']}: {note['message']}" for note in notes] == checked.err.splitlines()
