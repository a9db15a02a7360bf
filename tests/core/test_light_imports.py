"""Commands that merge nothing import neither torch nor transformers; a merge imports no transformers, and no strategy but its own."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.core.plugging import WEIGHTS_SQUARED, install

HEAVY = ("torch", "numpy", "transformers", "peft", "accelerate", "huggingface_hub", "safetensors", "yaml.constructor")
RUN = """
import json, sys
from modelmerger.cli.process import main
statuses, modules = [], []
for arguments in json.loads(sys.argv[1]):
    statuses.append(main(arguments))
    modules.append(sorted(sys.modules))
print(json.dumps([statuses, modules]))
"""


def run(*commands: list[str], extra_path: list[str] | None = None) -> tuple[list[int], set[str]]:
    """Runs commands one after the other in a process of their own: the exit statuses, and all modules imported by then."""
    statuses, modules = run_each(*commands, extra_path=extra_path)
    return statuses, modules[-1]


def run_each(*commands: list[str], extra_path: list[str] | None = None) -> tuple[list[int], list[set[str]]]:
    """The same, with the modules imported after each of the commands."""
    search = [*(extra_path or []), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(search)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", RUN, json.dumps(commands)],
        env=environment, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    statuses, modules = json.loads(done.stdout.splitlines()[-1])
    return statuses, list(map(set, modules))


@pytest.fixture
def path(models: SimpleNamespace, config: dict[str, Any]) -> str:
    file = models.folder / "merge.json"
    file.write_text(json.dumps(config))
    return str(file)


def test_commands_that_merge_nothing_import_nothing_heavy(path: str, models: SimpleNamespace) -> None:
    statuses, modules = run(
        ["--help"],
        ["--version"],
        ["merge", "--help"],
        ["plugins"],
        ["plugins", "--json"],
        ["plugins", "ties"],
        ["new-plugin", "no name"],
        ["mrege", path],
        ["merge", path, "--set", "options.verbose=1"],
        ["merge", path, "--set", "strategy=tie"],
        ["merge", path, "--set", "options.epsilon=1"],
        ["merge", str(models.folder / "nowhere.yaml")],
        ["merge", path, "--set", "models[0].path=./nowhere"],
        ["merge", path, "--output", str(models.folder / "nowhere/there/merged")],
        ["check", path],
        ["plan", path],
    )
    assert statuses == [0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 3, 4, 0, 0]
    assert "modelmerger.run" in modules
    assert {"modelmerger_strategies.weighted", "modelmerger_strategies.ties"} == {
        name for name in modules if name.startswith("modelmerger_strategies.") and name.count(".") == 1
    } - {"modelmerger_strategies.task_vectors"}
    assert not modules & {*HEAVY, "rich"} - {"yaml.constructor"}


def test_completion_imports_nothing_heavy(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_MODELMERGER_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"modelmerger merge '{path}' --set options.")
    monkeypatch.setenv("COMP_CWORD", "")
    statuses, modules = run([])
    assert statuses == [0]
    assert "modelmerger_strategies.weighted" in modules
    assert not modules & {*HEAVY, "rich"} - {"yaml.constructor"}


OF_SOME_MERGES = (
    "modelmerger.cli.plan",
    "modelmerger.config.documents.written_numbers",
    "modelmerger.config.inner_merges",
    "modelmerger.engine.merged_checkpoint",
    "modelmerger.engine.reading.kept",
    "modelmerger.engine.work.node",
    "modelmerger.hooks.answered.terms",
    "modelmerger.hooks.inquiries.child",
    "modelmerger.hooks.of_process",
    "modelmerger.inputs.direct.read_ahead",
    "modelmerger.output.earlier.foreign",
    "modelmerger.output.earlier.kept_entries",
    "modelmerger.output.earlier.old_output",
    "modelmerger.planning.layers.layer_view",
    "modelmerger.planning.mismatches.names",
    "modelmerger.planning.mismatches.shapes",
    "modelmerger.planning.ties.untying",
    "modelmerger.validation.models",
    "modelmerger.validation.running",
    "modelmerger.values.findings",
    "modelmerger.values.subject",
    "modelmerger.values.work.part",
    "modelmerger_plugins.compatibility.depth",
    "modelmerger_plugins.names.counterparts",
    "modelmerger_plugins.names.matching",
    "modelmerger_plugins.names.rules",
    "modelmerger_plugins.names.view",
    "modelmerger_plugins.peft_adapters.loading",
    "modelmerger_plugins.tokenizer.rows.recipes",
    "modelmerger_plugins.tokenizer.rows.view",
    "modelmerger_plugins.tokenizer.union.joining",
    "modelmerger_plugins.torch_bin.archive",
    "modelmerger_plugins.trainer.schedules",
)
"""Modules that a merge of models with one vocabulary and the same names has no need of."""


def test_a_merge_imports_torch_but_no_transformers(path: str, models: SimpleNamespace) -> None:
    """The first merge, which reads through the page cache, imports nothing that only some merges need."""
    assert not [name for name in OF_SOME_MERGES if importlib.util.find_spec(name) is None]
    plain = ["merge", path, "--set", "options.io=buffered", "--output", str(models.folder / "plain")]
    statuses, (needed, _, modules) = run_each(plain, ["merge", path], ["verify", str(models.output)])
    assert statuses == [0, 0, 0]
    assert sorted(needed & set(OF_SOME_MERGES)) == []
    assert "torch" in modules
    assert not modules & {"transformers", "peft", "accelerate", "huggingface_hub", "rich"}
    built_in = {name for name in modules if name.startswith("modelmerger_strategies.")}
    assert built_in == {"modelmerger_strategies.weighted"}


def test_only_the_named_strategy_of_others_is_imported(path: str, distribution: Callable[..., Path]) -> None:
    named, other, validator = install(
        distribution,
        [("strategy", "trims", WEIGHTS_SQUARED), ("strategy", "dare", "1 / 0"), ("validator", "bleu", "1 / 0")],
    )
    site = [entry for entry in sys.path if entry.endswith("site-acme-merge")]
    statuses, modules = run(["check", path], ["check", path, "--set", "strategy=trims"], ["plugins"], extra_path=site)
    assert statuses == [0, 0, 0]
    assert modules & {named, other, validator} == {named}


def test_a_reader_of_configs_is_imported_for_a_file_alone(path: str, distribution: Callable[..., Path]) -> None:
    source = "from modelmerger import hookimpl\n\n@hookimpl\ndef read_config(): return None\n"
    reader, command = install(distribution, [("reader", "toml", source), ("command", "count", "1 / 0")])
    site = [entry for entry in sys.path if entry.endswith("site-acme-merge")]
    statuses, modules = run(["--help"], ["plugins"], ["check", "--help"], extra_path=site)
    assert (statuses, modules & {reader, command}) == ([0, 0, 0], set())
    statuses, modules = run(["check", path], extra_path=site)
    assert (statuses, modules & {reader, command}) == ([0], {reader})
    assert not modules & set(HEAVY) - {"yaml.constructor"}


def test_saying_whose_an_option_is_imports_no_other_strategy(path: str) -> None:
    """`epsilon` is slerp's, `operation` is task_arithmetic's, and the strategy is weighted."""
    statuses, modules = run(
        ["check", path, "--set", "options.epsilon=1"], ["check", path, "--set", "models[0].operation=subtract"]
    )
    assert statuses == [2, 2]
    assert {name for name in modules if name.startswith("modelmerger_strategies.")} == {
        "modelmerger_strategies.weighted"
    }


def test_a_validation_is_checked_without_importing_anything_heavy() -> None:
    metrics = "validation.metrics=[perplexity, coherence, fluency, dialect_prompts]"
    statuses, modules = run(["validate", "/nowhere", "--set", metrics, "--set", "validation.thresholds.fluency=9"])
    assert statuses == [3]
    assert not modules & set(HEAVY) - {"yaml.constructor"}


def test_import_modelmerger_imports_nothing_heavy() -> None:
    code = "import sys, modelmerger; modelmerger.MergeConfig, modelmerger.ModelMerger; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {f"'{name}'" for name in HEAVY if f"'{name}'" in done.stdout}
