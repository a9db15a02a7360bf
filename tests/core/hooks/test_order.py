"""The complete order in which a merge with a validation calls the hooks, from its config to the model that comes back.

A hook that is added later fails these tests until it has its place here and in the documentation.
"""

import importlib
import json
import re
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import write_model
from modelmerger import ConfigError, MergeConfig, ModelMerger
from modelmerger.hooks.specs import HOOKS, STRATEGY_HOOKS

from tests.core.plugging import install

ORDER = [
    # a config file is read
    "read_config",
    # the config is made
    "expand_model",
    "expand_model",
    "wants_validation",
    "check_config",
    # the merge begins, with the config as it is by now
    "expand_model",
    "expand_model",
    "wants_validation",
    "check_config",
    # the models, headers only
    "locate_model",
    "load_model",
    "locate_model",
    "load_model",
    "view_models",
    "check_compatibility",
    "compose_model",
    # the plan: tensor `a` is merged elementwise, `b` is linear
    "choose_view",
    "count_rounds",
    "choose_ranges",
    "choose_view",
    "find_coefficients",
    "place_tensors",
    "save_model",
    "wants_slices",  # for the memory
    "adjust_config",  # of config.json, and of generation_config.json
    "adjust_config",
    "check_output",
    # what will lie beside the weights
    "write_sidecars",
    "check_files",
    # the weights
    "wants_slices",  # for the digest
    "measure_output",
    "wants_slices",
    "wants_finish",
    "run_slices",
    "choose_ranges",
    "measure_tensor",
    "merge_tensor",
    "observe_slice",
    "finish_tensor",
    "observe_slice",
    "finish_tensor",
    # what is published with them
    "name_companions",
    # the validation, whose validator scores a text and then asks for the model
    "provide_texts",
    "provide_texts",
    "validate_model",
    "score_labels",
    "locate_model",
    "materialise_model",
    "write_companions",
    # the model that comes back
    "return_model",
]
ELSEWHERE = {
    "add_commands": "called when one of these commands is asked for, before there is a config",
    "explain_config": "called where a config is refused",
    "explain_option": "called where a command is refused for an option that it does not have",
    "join_measurements": "called where a tensor is measured in several blocks",
    "merge_cores": "called where the updates of adapters are merged, in place of merge_tensor",
    "name_saved_tensors": "called where a returned model is saved elsewhere",
    "split_tensor": "called where weights are looked for, and by no merge",
}
"""The hooks that no such merge calls, and why."""
VALIDATOR_HOOKS = {"wants_validation", "validate_model"}
PLUGIN_HOOKS = [hook for hook in HOOKS if hook not in STRATEGY_HOOKS | VALIDATOR_HOOKS | ELSEWHERE.keys()]
NO_ANSWER = "", "None"
ANSWERS = {
    "choose_view": ("tensor_name", "'elementwise' if tensor_name == 'a' else 'linear'"),
    "find_coefficients": ("weights", "weights"),
    "count_rounds": ("", "1"),
    "measure_tensor": ("tensors", "tensors[0].double().sum()"),
    "merge_tensor": ("tensors", "sum(tensors)"),
    "wants_finish": ("", "True"),
    "wants_slices": ("", "True"),
    "run_slices": ("work", "one_at_a_time(work)"),
    "name_companions": ("", "[]"),
    "materialise_model": ("target", "target and unmeasurable()"),
    "return_model": ("", "'the model'"),
    "wants_validation": ("", "True"),
    "validate_model": ("subject", "[subject.score_labels(['text']), subject.model]"),
}
"""Of the hooks that have to answer: the arguments that they take, and the answer."""
HEAD = """
import {diary}
from modelmerger import Traits, UnmeasurableError, hookimpl

def one_at_a_time(work):
    worker = work.local()
    while task := work.take():
        work.done(worker.do(task))
    return True

def unmeasurable():
    raise UnmeasurableError("this model is not loaded")
"""
HOOK = """
@hookimpl
def {hook}({arguments}):
    {diary}.calls.append("{hook}")
    return {answer}
"""


def noting(diary: str, hooks: Iterable[str], declared: str = "") -> str:
    """The source of a plugin with these hooks, each of which notes that it was called."""
    parts = [HEAD.format(diary=diary), declared, "\n"]
    for hook in hooks:
        arguments, answer = ANSWERS.get(hook, NO_ANSWER)
        parts.append(HOOK.format(hook=hook, diary=diary, arguments=arguments, answer=answer))
    return "".join(parts)


@pytest.fixture
def calls(distribution: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hooks that such a merge calls, in order."""
    built_in = [validator.name for validator in entry_points(group="modelmerger.default_validators")]
    monkeypatch.setenv("MODELMERGER_DISABLE_PLUGINS", ",".join(built_in))
    (diary,) = install(distribution, [("plugin", "diary", "calls = []")], "diary")
    plugins = [
        ("reading plugin", "witness", noting(diary, PLUGIN_HOOKS)),
        ("strategy", "witnessed", noting(diary, STRATEGY_HOOKS, "traits = Traits(models=(2, 2))")),
        ("default validator", "looking", noting(diary, VALIDATOR_HOOKS, "metrics = {'found': 'lower'}")),
    ]
    install(distribution, plugins)
    tensors = {"a": torch.ones(4), "b": torch.ones(4)}
    paths = [write_model(tmp_path / name, tensors, {"model_type": "llama"}) for name in ("first", "second")]
    config = {
        "strategy": "witnessed",
        "models": [{"path": str(path)} for path in paths],
        "output_path": str(tmp_path / "merged"),
        "validation": {"run_tests": True},
    }
    (tmp_path / "merge.json").write_text(json.dumps(config))

    assert ModelMerger(MergeConfig.from_file(tmp_path / "merge.json")).merge() == "the model"

    noted: list[str] = importlib.import_module(diary).calls
    return noted


def test_the_order_of_all_hooks(calls: list[str]) -> None:
    assert calls == ORDER


def test_every_hook_has_its_place_in_that_order() -> None:
    assert set(ORDER) | ELSEWHERE.keys() == set(HOOKS)
    assert not set(ORDER) & ELSEWHERE.keys()


def test_the_hook_of_commands_is_called_when_one_is_asked_for(
    distribution: Callable[..., Path], command: Callable[..., SimpleNamespace]
) -> None:
    (diary,) = install(distribution, [("plugin", "diary", "calls = []")], "diary")
    install(distribution, [("command", "witness", noting(diary, ["add_commands"]))])

    command("--help")
    assert importlib.import_module(diary).calls == []
    command("witness", "--help")
    assert importlib.import_module(diary).calls == ["add_commands"]


def test_the_hook_of_refusals_is_called_where_a_config_is_refused(distribution: Callable[..., Path]) -> None:
    (diary,) = install(distribution, [("plugin", "diary", "calls = []")], "diary")
    install(distribution, [("plugin", "witness", noting(diary, ["explain_config"]))])

    MergeConfig(strategy="weighted", models=[{"path": "./a"}])
    assert importlib.import_module(diary).calls == []
    with pytest.raises(ConfigError, match="no strategy is named 'weightd'"):
        MergeConfig(strategy="weightd", models=[{"path": "./a"}])
    assert importlib.import_module(diary).calls == ["explain_config"]


def test_the_documentation_has_that_order() -> None:
    """Each hook where it is called for the first time."""
    page = (Path(__file__).parents[3] / "docs/reference/hooks.md").read_text()
    section = page.partition("\n## The order of calls\n")[2].partition("\n## ")[0]
    table = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    assert re.findall(r"\[`([a-z_]+)`\]\(#\1\)", table) == list(dict.fromkeys(ORDER))
