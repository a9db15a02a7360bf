"""Configs of other tools: read by installed plugins from the raw text, checked like any, with notes that stay."""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger import ConfigError, MergeConfig, ModelMerger, PluginError, merge
from safetensors.torch import load_file

from tests.core.plugging import install

Distribution = Callable[..., Path]
Command = Callable[..., SimpleNamespace]

STACKS = '''
"""Stacks: YAML with a document for each model, as another tool writes it. A key that is given twice is a list there."""

from attrs import field, frozen, validators
from modelmerger import ConfigError, Problem, ReadConfig, hookimpl


@frozen(kw_only=True)
class ReadOptions:
    intent: bool = False
    factor: float = field(default=1.0, validator=validators.gt(0))
    label: str = ""


@hookimpl
def read_config(text, source, options):
    if not text.startswith("%STACK"):
        return None
    documents = [part.strip().splitlines() for part in text.split("\\n---\\n")[1:]]
    models, notes = [], []
    for document in documents:
        rows = [line.split(": ") for line in document]
        shares = [float(value) for key, value in rows if key == "share"]
        models.append({"path": dict(rows)["model"], "weight": sum(shares) * options.factor})
        for key, value in rows:
            if key == "colour":
                notes.append(Problem(f"colour {value} has no effect", source, severity="warning"))
    if options.intent:
        notes.append(Problem(f"read as {options.label!r}", source, severity="note"))
    return ReadConfig({"strategy": "weighted", "models": models, "output_path": OUTPUT}, tuple(notes))
'''


@pytest.fixture
def stack(models: SimpleNamespace) -> Path:
    path: Path = models.folder / "merge.stack"
    path.write_text(
        f"%STACK\n---\nmodel: {models.a}\nshare: 1\nshare: 2\ncolour: red\n---\nmodel: {models.b}\nshare: 1\n"
    )
    return path


@pytest.fixture
def stacks(distribution: Distribution, models: SimpleNamespace) -> str:
    source = STACKS.replace("OUTPUT", repr(str(models.output)))
    (module,) = install(distribution, [("reader", "stacks", source)])
    return module


def raised(error: type[Exception], path: Path, **told: Any) -> list[str]:
    with pytest.raises(error) as caught:
        MergeConfig.from_file(path, **told)
    lines: list[str] = caught.value.lines()  # type: ignore[attr-defined]
    return lines


@pytest.mark.usefixtures("stacks")
def test_a_foreign_config_is_merged_as_ours_would_be(stack: Path, models: SimpleNamespace) -> None:
    config = MergeConfig.from_file(stack)
    assert config.models == [{"path": str(models.a), "weight": 3.0}, {"path": str(models.b), "weight": 1.0}]
    merge(config)
    merged = load_file(models.output / "model.safetensors")
    for name, value in merged.items():
        exact = models.tensors["a"][name].double() * 0.75 + models.tensors["b"][name].double() * 0.25
        assert (value.double() - exact).abs().max() <= exact.abs().max() * 2**-8


@pytest.mark.usefixtures("stacks")
def test_its_notes_stand_wherever_those_of_the_merge_do(
    stack: Path, models: SimpleNamespace, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    said = f"{stack}: colour red has no effect"
    config = MergeConfig.from_file(stack)
    assert [str(note) for note in config.notes] == [said]
    assert said in [str(note) for note in ModelMerger(config).check_compatibility()]
    checked = command("check", stack)
    assert (checked.status, checked.err.splitlines()[0]) == (0, f"warning: {said}")
    row = {"severity": "warning", "message": said}
    assert row in json.loads(command("check", stack, "--json").out)["notes"]
    with caplog.at_level(logging.WARNING, "modelmerger"):
        report = merge(config)
    assert said in [str(note) for note in report.notes]
    assert said in [record.getMessage() for record in caplog.records]
    recorded = {"severity": "warning", "message": "merge.stack: colour red has no effect"}
    assert recorded in json.loads((models.output / "modelmerger.json").read_bytes())["notes"]


@pytest.mark.usefixtures("stacks")
@pytest.mark.parametrize("name", ["check", "plan --no-trial", "merge"])
def test_every_command_with_a_config_takes_it(
    stack: Path, command: Command, name: str, models: SimpleNamespace
) -> None:
    result = command(*name.split(), stack, "--set", "models[1].weight=0.5")
    assert result.status == 0, result.err
    assert models.output.exists() is (name == "merge")


@pytest.mark.usefixtures("stacks")
def test_a_validation_takes_it_and_says_its_notes(stack: Path, command: Command, models: SimpleNamespace) -> None:
    result = command("validate", models.folder / "nowhere", "--config", stack)
    assert result.status == 3
    assert result.err.splitlines()[0] == f"warning: {stack}: colour red has no effect"


@pytest.mark.usefixtures("stacks")
def test_what_no_reader_takes_is_read_as_ours(tmp_path: Path) -> None:
    path = tmp_path / "merge.yaml"
    path.write_text("strategy: weighted\nmodels: [{path: ./a}]\n")
    assert MergeConfig.from_file(path) == MergeConfig(strategy="weighted", models=[{"path": "./a"}])
    path.write_text("strategy: weighted\nstrategy: slerp\n")
    assert raised(ConfigError, path) == [f"{path}: line 2, column 1: key 'strategy' is given twice. Remove one."]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('{"strategy": "weighted", "models": [{"path": "a", "wieght": 1}]}', "models[0]: unknown key 'wieght', did you mean 'weight'?"),
        ('{"strategy": "weigthed", "models": [{"path": "a"}]}', "no strategy is named 'weigthed'; did you mean 'weighted'? "),
        ('{"strategy": "weighted", "models": [{"path": "a"}], "options": {"verbose": 1}}', "options.verbose: must be true or false, got 1"),
        ('{"strategy": modelmerger, "models": []}', "strategy: a 'module' is not allowed. Give texts, numbers, lists or mappings."),
        ('{"strategy": "weighted", "models": [{"path": "a", "weight": float("nan")}]}', "models[0].weight: the number is not finite"),
        ('{"strategy": "x", 3: 4}', "3: the key is not a text. Give a text."),
    ],
)  # fmt: skip
def test_what_is_wrong_with_its_answer_names_the_reader_and_the_place(
    distribution: Distribution, tmp_path: Path, answer: str, said: str, command: Command
) -> None:
    source = "import modelmerger\nfrom modelmerger import ReadConfig, hookimpl\n\n@hookimpl\ndef read_config():\n"
    install(distribution, [("reader", "loose", f"{source}    return ReadConfig({answer})\n")])
    path = tmp_path / "x.ini"
    path.write_text("")
    (line,) = raised(ConfigError, path)
    assert line.startswith(said)
    assert line.endswith(f"(so reader 'loose' from acme-merge 1.0 reads {path})") or "…" in line
    result = command("check", path)
    assert (result.status, result.err) == (2, f"error: {line}\n")


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        ("return {}", PluginError, "reader 'r' from acme-merge 1.0: read_config gave {} instead of a ReadConfig or None."),
        ("return ReadConfig({}, ['x'])", PluginError, "reader 'r' from acme-merge 1.0: read_config gave ReadConfig("),
        ("1 / 0", PluginError, "reader 'r' from acme-merge 1.0 raised ZeroDivisionError in read_config: division by zero"),
        ("raise ConfigError('line 3: no')", ConfigError, "line 3: no"),
        ("return ReadConfig({}, [Problem('no', 'line 4')])", ConfigError, "line 4: no"),
    ],
)  # fmt: skip
def test_what_a_reader_does_wrong_or_refuses(
    distribution: Distribution, tmp_path: Path, body: str, error: type[Exception], said: str
) -> None:
    source = f"from modelmerger import ConfigError, Problem, ReadConfig, hookimpl\n\n@hookimpl\ndef read_config(text):\n    {body}\n"
    install(distribution, [("reader", "r", source)])
    (tmp_path / "x").write_text("x")
    (line,) = raised(error, tmp_path / "x")
    assert line.startswith(said)


@pytest.mark.usefixtures("stacks")
def test_options_of_the_reader_are_read_as_yaml_and_reach_it(stack: Path, command: Command) -> None:
    config = MergeConfig.from_file(stack, read={"intent": True, "label": "no", "factor": 2})
    assert [model["weight"] for model in config.models] == [6.0, 2.0]
    assert str(config.notes[1]) == f"{stack}: read as 'no'"
    told = ("--read", "intent=true", "--read", "label=no", "--read", "factor=2")
    assert f"note: {stack}: read as 'no'" in command("check", stack, *told).err.splitlines()


@pytest.mark.usefixtures("stacks")
def test_wrong_options_of_the_reader_are_all_said_with_its_name(stack: Path, command: Command) -> None:
    result = command("check", stack, "--read", "intnet=1", "--read", "intent=1", "--read", "factor=-1")
    who = "reader 'stacks' from acme-merge 1.0"
    assert result.status == 2
    assert result.err.splitlines() == [
        f"error: --read: unknown key 'intnet', did you mean 'intent'? ({who} reads this file, and knows intent, factor, label)",
        f"error: --read.intent: must be true or false, got 1 (an option of {who})",
        f"error: --read.factor: 'factor' must be > 0: -1.0 (an option of {who})",
    ]


def test_options_for_reading_where_no_reader_takes_the_file(
    stacks: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "merge.yaml"
    path.write_text("strategy: weighted\nmodels: [{path: ./a}]\n")
    nobody = f"{path}: nothing reads 'intent' (--read): this is read as a config of our own, as "
    assert raised(ConfigError, path, read={"intent": 3}) == [
        f"{nobody}of the readers mergekit_recipes, stacks none took it. Leave it out"
    ]
    with monkeypatch.context() as patch:
        patch.setenv("MODELMERGER_DISABLE_PLUGINS", "stacks,mergekit_recipes")
        without = command("check", path, "--read", "intent=3")
    assert (without.status, without.err) == (2, f"error: {nobody}no reader is installed. Leave it out\n")
    assert command("check", path, "--read", "intent").err == (
        "error: --read wants KEY=VALUE, got 'intent'. For example --read intent=true\n"
    )
    assert command("validate", "x", "--read", "intent=1").err == (
        "error: --read is about a config, and none is given. Leave it out\n"
    )
    assert stacks in sys.modules


def test_the_first_answer_counts_and_tryfirst_is_honoured(distribution: Distribution, tmp_path: Path) -> None:
    source = "from modelmerger import ReadConfig, hookimpl\n\n@{mark}\ndef read_config():\n    return {answer}\n"
    config = 'ReadConfig({{"strategy": "weighted", "models": [{{"path": "{}"}}]}})'
    (tmp_path / "x").write_text("")
    install(
        distribution,
        [
            ("reader", "a", source.format(mark="hookimpl(trylast=True)", answer=config.format("last"))),
            ("reader", "b", source.format(mark="hookimpl", answer=config.format("plain"))),
            ("reader", "c", source.format(mark="hookimpl(tryfirst=True)", answer="None")),
        ],
    )
    assert MergeConfig.from_file(tmp_path / "x").models == [{"path": "plain"}]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"x" * (1 << 20) + b"y", "is 1,048,577 bytes long, more than the 1,048,576 allowed"),
        (b"\xff", "line 1, column 1: this is not UTF-8, or a control character. Remove it."),
        (b"%STACK\n\x01", "line 2, column 1: this is not UTF-8, or a control character. Remove it."),
        (None, "is not a regular file"),
    ],
)
def test_limits_hold_before_any_reader_is_asked(
    distribution: Distribution, tmp_path: Path, content: bytes | None, said: str
) -> None:
    install(
        distribution, [("reader", "r", "from modelmerger import hookimpl\n\n@hookimpl\ndef read_config(): 1 / 0\n")]
    )
    path = tmp_path / "x"
    os.mkfifo(path) if content is None else path.write_bytes(content)
    (line,) = raised(ConfigError, path)
    assert said in line


def test_nothing_is_imported_for_reading_but_readers_and_these_only_for_files(
    stacks: str, stack: Path, distribution: Distribution
) -> None:
    (strategy,) = install(distribution, [("strategy", "unused", "1 / 0")], "other-merge")
    MergeConfig.from_dict({"strategy": "weighted", "models": [{"path": "./a"}]})
    assert stacks not in sys.modules
    MergeConfig.from_file(stack)
    assert stacks in sys.modules
    assert strategy not in sys.modules


@pytest.mark.parametrize(
    ("kind", "source", "said"),
    [
        ("plugin", STACKS, "plugin 'r' from acme-merge 1.0 has the hook read_config, which is called only of entry points of modelmerger.config_readers. MODELMERGER_DISABLE_PLUGINS=r switches it off."),
        ("reader", "x = 1", "reader 'r' from acme-merge 1.0 does not have the hook read_config."),
        ("reader", STACKS.replace("@hookimpl\ndef", "@hookimpl(wrapper=True)\ndef").replace("return None", "yield"), "reader 'r' from acme-merge 1.0 wraps read_config, which cannot be wrapped."),
        ("reader", STACKS.replace("intent: bool = False", "intent: bool"), "reader 'r' from acme-merge 1.0: the option 'intent' has no default. Give it one."),
        ("reader", "import modelmerger_no_such", "reader 'r' from acme-merge 1.0 could not be imported: ModuleNotFoundError: No module named 'modelmerger_no_such'"),
    ],
)  # fmt: skip
def test_what_is_no_reader_is_said(
    distribution: Distribution, tmp_path: Path, kind: str, source: str, said: str
) -> None:
    install(distribution, [(kind, "r", source)])
    path = tmp_path / "merge.yaml"
    path.write_text("strategy: weighted\nmodels: [{path: ./a}]\n")
    assert raised(PluginError, path) == [said]


def test_a_plugin_that_is_always_on_may_read_too(distribution: Distribution, stack: Path) -> None:
    both = (
        STACKS.replace("OUTPUT", "None")
        + "\n@hookimpl\ndef check_config():\n    yield Problem('asked', severity='note')\n"
    )
    install(distribution, [("reading plugin", "both", both)])
    settings, _ = MergeConfig.from_file(stack).resolved()
    assert [note.message for note in settings.notes] == ["colour red has no effect", "asked"]
