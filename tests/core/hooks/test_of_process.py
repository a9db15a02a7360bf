"""Plugins that are not installed: by `--plugin` and from Python, digested into the plan, and never named by a file."""

import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from blake3 import blake3
from modelmerger import (
    ConfigError,
    Finding,
    MergeConfig,
    MergeReport,
    ModelMerger,
    PluginError,
    Traits,
    Watch,
    hookimpl,
    merge,
)
from modelmerger.testing import merge_in_memory
from safetensors.torch import load_file

from tests.core.plugging import WEIGHTS_SQUARED, install

Command = Callable[..., SimpleNamespace]
COUNTING = """
from modelmerger import Finding, hookimpl

metrics = {"length": "lower"}

@hookimpl
def validate_model(subject):
    yield Finding(metric="length", value=len(subject.name), evidence="its name")
"""
STAMPING = """
from attrs import frozen
from modelmerger import hookimpl

@frozen
class Options:
    stamp: str = "none"

@hookimpl
def write_sidecars(options):
    return {"STAMP": options.stamp.encode()}
"""


class Scaled:
    """A strategy as an object that holds something."""

    traits = Traits(models=(1, None))

    def __init__(self, factor: float) -> None:
        self.factor = factor

    @hookimpl
    def find_coefficients(self, weights: list[float]) -> list[float]:
        return [weight * self.factor for weight in weights]


class Length:
    """A validator as an object."""

    metrics: ClassVar = {"length": "lower"}

    @hookimpl
    def validate_model(self, subject: Any) -> Iterator[Finding]:
        yield Finding(metric="length", value=len(subject.name), evidence="its name")


@pytest.fixture
def path(models: SimpleNamespace, config: dict[str, Any]) -> Path:
    file: Path = models.folder / "merge.json"
    file.write_text(json.dumps(config))
    return file


@pytest.fixture
def squares(models: SimpleNamespace) -> Path:
    file: Path = models.folder / "squares.py"
    file.write_text(WEIGHTS_SQUARED)
    return file


def imported(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_squared(models: SimpleNamespace) -> bool:
    merged = load_file(models.output / "model.safetensors")
    for name, value in merged.items():
        exact = models.tensors["a"][name].double() * 0.36 + models.tensors["b"][name].double() * 0.16
        torch.testing.assert_close(value.double(), exact, rtol=2**-8, atol=1e-9)
    return True


def test_the_command_line_takes_a_file(command: Command, path: Path, squares: Path, models: SimpleNamespace) -> None:
    result = command("merge", path, "--plugin", squares, "--set", "strategy=squares")
    assert (result.status, result.out[:26]) == (0, "merged 2 models (squares) ")
    assert is_squared(models)


def test_python_takes_a_module(config: dict[str, Any], squares: Path, models: SimpleNamespace) -> None:
    made = MergeConfig(**config | {"strategy": imported(squares)})
    report = merge(made)
    assert report.strategy == "squares"
    assert is_squared(models)


def test_both_doors_lead_to_the_same_plan_wherever_the_file_is(
    command: Command, path: Path, config: dict[str, Any], squares: Path, models: SimpleNamespace
) -> None:
    (moved := models.folder / "elsewhere").mkdir()
    other = moved / "squares.py"
    other.write_bytes(squares.read_bytes())
    digests = [
        json.loads(command("plan", path, "--no-trial", "--plugin", file, "--set", "strategy=squares", "--json").out)[
            "digest"
        ]
        for file in (squares, other)
    ]
    digests.append(ModelMerger(MergeConfig(**config | {"strategy": imported(squares)})).plan().digest)
    assert len(set(digests)) == 1


@pytest.mark.parametrize("door", ["python", "command line"])
def test_manifest_and_card_say_what_it_is(
    command: Command, path: Path, config: dict[str, Any], squares: Path, models: SimpleNamespace, door: str
) -> None:
    if door == "python":
        merge(MergeConfig(**config | {"strategy": imported(squares)}))
    else:
        assert command("merge", path, "--plugin", squares, "--set", "strategy=squares").status == 0
    digest = blake3(squares.read_bytes()).hexdigest()
    manifest = json.loads((models.output / "modelmerger.json").read_bytes())
    row = {"kind": "strategy", "name": "squares", "distribution": "this process", "digest": digest}
    assert manifest["plugins"][0] == row
    assert manifest["config"]["strategy"] == "squares"
    card = (models.output / "README.md").read_text()
    assert f"The strategy 'squares' was not installed, but given by whoever made this model (BLAKE3 {digest})." in card


class StopError(Exception):
    pass


def stop_before_publishing(config: MergeConfig) -> None:
    def step(name: str, _: Path) -> None:
        if name == "rename":
            raise StopError

    with pytest.raises(StopError):
        merge(config, Watch(step=step))


def removed(report: MergeReport) -> bool:
    return any("an unfinished merge of another plan" in str(note) for note in report.notes)


@pytest.mark.parametrize("change", ["", "\n# a comment\n", "\nhelper = 3\n"])
def test_an_interrupted_merge_goes_on_with_the_same_source_alone(
    config: dict[str, Any], squares: Path, change: str
) -> None:
    stop_before_publishing(MergeConfig(**config | {"strategy": imported(squares)}))
    squares.write_text(squares.read_text() + change)
    report = merge(MergeConfig(**config | {"strategy": imported(squares)}))
    assert (report.bytes_reused, removed(report)) == ((0, True) if change else (report.bytes_written, False))


@pytest.mark.parametrize("factor", [0.5, 0.25])
def test_an_interrupted_merge_goes_on_with_an_object_that_holds_the_same_alone(
    config: dict[str, Any], factor: float
) -> None:
    stop_before_publishing(MergeConfig(**config | {"strategy": Scaled(0.5)}))
    report = merge(MergeConfig(**config | {"strategy": Scaled(factor)}))
    assert report.strategy == "Scaled"
    assert removed(report) is (factor != 0.5)


def test_any_file_may_change_the_plan_of_the_command_line(
    command: Command, path: Path, config: dict[str, Any], tmp_path: Path
) -> None:
    """A plugin that is always on, too."""
    stamp = tmp_path / "stamp.py"
    digests = set()
    for source in (STAMPING, STAMPING + "\n", STAMPING):
        stamp.write_text(source)
        digests.add(json.loads(command("plan", path, "--no-trial", "--plugin", stamp, "--json").out)["digest"])
    digests.add(ModelMerger(MergeConfig(**config)).plan().digest)
    assert len(digests) == 3


def test_a_plugin_that_is_always_on_has_its_options(
    command: Command, path: Path, tmp_path: Path, models: SimpleNamespace
) -> None:
    (tmp_path / "stamp.py").write_text(STAMPING)
    result = command("merge", path, "--plugin", tmp_path / "stamp.py", "--set", "options.stamp=seen")
    assert result.status == 0, result.err
    assert (models.output / "STAMP").read_bytes() == b"seen"
    assert "belongs to" not in command("check", path, "--set", "options.stamp=seen").err


def test_a_file_may_read_the_config(command: Command, tmp_path: Path, models: SimpleNamespace) -> None:
    source = (
        "from modelmerger import ReadConfig, hookimpl\n\n@hookimpl\ndef read_config(text):\n"
        "    return ReadConfig({'strategy': 'weighted', 'models': [{'path': text.strip()}]})\n"
    )
    (tmp_path / "lines.py").write_text(source)
    (tmp_path / "x.txt").write_text(str(models.a))
    assert command("check", tmp_path / "x.txt", "--plugin", tmp_path / "lines.py").status == 0


def test_a_validator_may_be_an_object_or_a_file(
    command: Command, path: Path, config: dict[str, Any], tmp_path: Path
) -> None:
    _, hooks = MergeConfig(**config, validation={"metrics": ["perplexity", Length()]}).resolved()
    assert list(hooks.validation.validators) == ["perplexity", "Length"]
    (tmp_path / "counting.py").write_text(COUNTING)
    told = ("--set", "validation.metrics=[counting]", "--set", "validation.thresholds.length=100")
    assert command("check", path, "--plugin", tmp_path / "counting.py", *told).status == 0
    assert "no validator is named 'counting'" in command("check", path, *told).err


COPYING = """
from modelmerger import Composition, Traits, hookimpl

traits = Traits(models=(1, None))

@hookimpl
def compose_model(checkpoints):
    return Composition(checkpoints[1])
"""


def test_a_strategy_may_do_nothing_but_compose(
    command: Command, path: Path, config: dict[str, Any], models: SimpleNamespace, tmp_path: Path
) -> None:
    (file := tmp_path / "copying.py").write_text(COPYING)
    result = command("merge", path, "--plugin", file, "--set", "strategy=copying")
    assert result.status == 0, result.err
    by_file = (models.output / "model.safetensors").read_bytes()
    merge(MergeConfig(**{**config, "strategy": imported(file), "options": {"overwrite": True}}))
    assert (models.output / "model.safetensors").read_bytes() == by_file
    merged = load_file(models.output / "model.safetensors")
    assert all(torch.equal(value, models.tensors["b"][name]) for name, value in merged.items())


def test_a_strategy_may_be_tried_in_memory(squares: Path) -> None:
    merged = merge_in_memory(
        imported(squares), [{"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}], weights=[1, 3]
    )
    assert merged["w"].tolist() == [19.0]


@pytest.mark.parametrize(
    ("name", "content", "status", "said"),
    [
        ("x.py", None, 2, "{file}: cannot be opened: No such file or directory."),
        ("x.py", "", 7, "{file} has no hooks. Mark functions with @hookimpl, named as a hook is."),
        ("x.py", "def broken(:", 7, "{file} could not be imported: SyntaxError: invalid syntax (line 1)\n"),
        ("x.py", "\n1 / 0", 7, "{file} could not be imported: ZeroDivisionError: division by zero (line 2)\n"),
        ("x.py", "raise SystemExit(0)", 7, "{file} could not be imported: SystemExit: 0 (line 1)\n"),
        ("x.py", "raise KeyboardInterrupt", 7, "{file} could not be imported: KeyboardInterrupt:  (line 1)\n"),
        ("x.py", "from modelmerger import hookimpl\n@hookimpl\ndef merge_tensors(): ...", 7, "{file} does not fit the hooks: there is no hook 'merge_tensors', did you mean 'merge_tensor'?"),
        ("x.py", WEIGHTS_SQUARED + COUNTING, 7, "{file} has hooks of a strategy and of a validator. Make two files of it."),
        ("x.py", "from modelmerger import hookimpl\n@hookimpl\ndef add_commands(): ...", 7, "plugin 'x' from this process ({file}, blake3 "),
        ("slerp.py", WEIGHTS_SQUARED, 2, "strategy 'slerp' is provided twice: by this process ({file}, blake3 "),
        ("x.py", "#" * (1 << 20) + "#", 2, "{file}: is 1,048,577 bytes long"),
    ],
)  # fmt: skip
def test_what_is_no_plugin_is_said(
    command: Command, path: Path, tmp_path: Path, name: str, content: str | None, status: int, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    modules = set(sys.modules)
    result = command("check", path, "--plugin", tmp_path / name)
    assert result.status == status, result.err
    assert result.err.startswith(f"error: {said.format(file=tmp_path / name)}")
    assert len(result.err.splitlines()) == 1
    assert "could not be imported" not in said or not {m for m in set(sys.modules) - modules if m.startswith("x_")}


def warnings_of(result: SimpleNamespace) -> str:
    """What a command said on stderr besides notes."""
    return "".join(line for line in result.err.splitlines(keepends=True) if not line.startswith("note: "))


SLURM = "from modelmerger import hookimpl\n@hookimpl\ndef run_slices(work): ..."


@pytest.mark.parametrize(
    ("content", "said", "how"),
    [
        (WEIGHTS_SQUARED, "the strategy is 'weighted'", "strategy=mine"),
        (COUNTING, "the config names no validator", "validation.metrics=[mine]"),
        (SLURM, "the config names no executor", "options.executor=mine"),
        (STAMPING, "", ""),
        (WEIGHTS_SQUARED + "\n@hookimpl\ndef read_config(text): ...", "", ""),
    ],
)
def test_a_file_that_the_config_does_not_name_is_said_to_do_nothing(
    command: Command, path: Path, tmp_path: Path, content: str, said: str, how: str
) -> None:
    (file := tmp_path / "mine.py").write_text(content)
    line = f"{file}: is not used: {said}. Give --set {how}, or leave --plugin out.\n" if said else ""
    result = command("check", path, "--plugin", file)
    assert (result.status, warnings_of(result)) == (0, f"warning: {line}" if line else "")
    strictly = command("check", path, "--plugin", file, "--strict")
    assert (strictly.status, warnings_of(strictly)) == ((2, f"error: {line}") if line else (0, ""))
    if how:
        named = command("check", path, "--plugin", file, "--strict", "--set", how)
        assert (named.status, warnings_of(named)) == (0, "")


def test_a_strategy_that_only_a_merge_within_the_merge_names_is_used(
    command: Command, path: Path, config: dict[str, Any], squares: Path
) -> None:
    inner = {"strategy": "squares", "models": config["models"]}
    path.write_text(json.dumps(config | {"models": [{"merge": inner}, config["models"][0]]}))
    result = command("check", path, "--plugin", squares, "--strict")
    assert (result.status, warnings_of(result)) == (0, "")


def test_a_validation_alone_says_it_too(command: Command, squares: Path, models: SimpleNamespace) -> None:
    line = f"{squares}: is not used: nothing is merged. Give --set strategy=squares, or leave --plugin out."
    assert f"warning: {line}\n" in command("validate", models.a, "--plugin", squares).err
    strictly = command("validate", models.a, "--plugin", squares, "--strict")
    assert (strictly.status, strictly.err) == (2, f"error: {line}\n")


def test_a_file_that_is_given_twice_is_taken_once(
    command: Command, path: Path, squares: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(squares.parent)
    twice = "--plugin", squares, "--plugin", "./squares.py"
    assert command("check", path, *twice, "--set", "strategy=squares").status == 0


def test_a_name_that_is_taken_names_both(
    command: Command, path: Path, config: dict[str, Any], squares: Path, distribution: Callable[..., Path]
) -> None:
    install(distribution, [("strategy", "squares", WEIGHTS_SQUARED)])
    said = command("check", path, "--plugin", squares).err
    assert " and by acme-merge 1.0; give the file or module another name." in said
    with pytest.raises(
        ConfigError, match=r"by this process \(squares, blake3 [0-9a-f]{12}\) and by acme-merge 1\.0; give"
    ):
        MergeConfig(**config | {"strategy": imported(squares)})
    (other := squares.parent / "other").mkdir()
    (other / "mine.py").write_text(WEIGHTS_SQUARED)
    (squares.parent / "mine.py").write_text(WEIGHTS_SQUARED)
    twice = command("check", path, "--plugin", other / "mine.py", "--plugin", squares.parent / "mine.py")
    assert twice.status == 2
    assert twice.err.count("mine.py") == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strategy": "./squares.py"}, "a config names no file of code (./squares.py). Give --plugin ./squares.py, and call it 'squares' here"),
        ({"validation": {"metrics": ["./x.py"]}}, "validation.metrics: a config names no file of code (./x.py). Give --plugin ./x.py, and call it 'x' here ({path}:1)"),
        ({"plugin": "./squares.py"}, "config: unknown key 'plugin' ({path}:1)"),
    ],
)  # fmt: skip
def test_a_config_file_cannot_name_code(
    command: Command,
    path: Path,
    config: dict[str, Any],
    squares: Path,
    changes: dict[str, Any],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(squares.parent)
    path.write_text(json.dumps(config | changes))
    result = command("check", path)
    assert (result.status, result.err) == (2, f"error: {said.format(path=path.name)}\n")


def test_a_module_whose_file_has_changed_since_is_refused(config: dict[str, Any], squares: Path) -> None:
    """What would run is not what the digest would be of."""
    module = imported(squares)
    MergeConfig(**config | {"strategy": module})
    squares.write_text(WEIGHTS_SQUARED.replace("weight**2", "weight**3"))
    with pytest.raises(PluginError, match=r"strategy 'squares' was imported from a file that has changed since"):
        MergeConfig(**config | {"strategy": module})
    MergeConfig(**config | {"strategy": imported(squares)})


def test_what_a_module_keeps_as_it_runs_is_no_change_of_its_file(config: dict[str, Any], squares: Path) -> None:
    source = WEIGHTS_SQUARED.replace("traits =", "CALLS = 0\nSEEN = []\nNAMES = {'b', 'a'}\ntraits =")
    source = source.replace("    return", "    global CALLS\n    CALLS += 1\n    SEEN.append(1)\n    return")
    squares.write_text(source)
    module = imported(squares)
    for _ in range(2):
        ModelMerger(MergeConfig(**config | {"strategy": module})).plan()
    assert module.CALLS == len(module.SEEN) > 1


@pytest.mark.parametrize(
    ("old", "new", "refused"),
    [
        ("POWER = 2", "POWER = 9", True),
        ("POWER = 2", "POWER = 2\ndef helper():\n    return 1\n", True),
        ("models=(1, None)", "models=(1, 8)", False),
        ("POWER = 2", "POWER = 2  # the square", False),
    ],
)
def test_what_runs_is_never_taken_for_what_the_file_says_by_now(
    config: dict[str, Any], squares: Path, old: str, new: str, refused: bool
) -> None:
    """Where the change is not seen, another plan comes of what runs, so that no fresh process goes on with it."""
    source = WEIGHTS_SQUARED.replace("weight**2", "weight**POWER").replace("traits =", "POWER = 2\ntraits =")
    squares.write_text(source)
    stale = imported(squares)
    squares.write_text(source.replace(old, new))
    fresh = ModelMerger(MergeConfig(**config | {"strategy": imported(squares)})).plan().digest
    if refused:
        with pytest.raises(PluginError, match="changed since"):
            MergeConfig(**config | {"strategy": stale})
    else:
        same = "#" in new
        assert (ModelMerger(MergeConfig(**config | {"strategy": stale})).plan().digest == fresh) == same


def test_what_cannot_be_digested_is_refused(config: dict[str, Any]) -> None:
    made = ModuleType("made")
    exec(WEIGHTS_SQUARED, vars(made))
    with pytest.raises(PluginError, match="strategy 'made' cannot be digested, its source or what it holds"):
        MergeConfig(**config | {"strategy": made})
    holding = Scaled(1.0)
    holding.factor = lambda: 1  # type: ignore[assignment]
    with pytest.raises(PluginError, match="strategy 'Scaled' cannot be digested"):
        MergeConfig(**config | {"strategy": holding})


def test_what_has_no_hooks_is_no_strategy(config: dict[str, Any]) -> None:
    for module in (json, math, torch):
        name = module.__name__
        with pytest.raises(PluginError, match=rf"^strategy '{name}' has no hooks of a strategy\. Mark functions"):
            MergeConfig(**config | {"strategy": module})
        with pytest.raises(PluginError, match=rf"^validator '{name}' has no hooks of a validator\. Mark functions"):
            MergeConfig(**config | {"validation": {"metrics": [module]}})
    with pytest.raises(ConfigError, match="strategy: must be the name of a strategy, got 3"):
        MergeConfig(**config | {"strategy": 3})


def test_a_class_is_no_plugin_and_an_instance_is(config: dict[str, Any]) -> None:
    with pytest.raises(PluginError, match=r"^strategy 'Scaled' is a class\. Give an instance: Scaled\(\)\.$"):
        MergeConfig(**config | {"strategy": Scaled})
    with pytest.raises(PluginError, match=r"^validator 'Length' is a class\. Give an instance: Length\(\)\.$"):
        MergeConfig(**config | {"validation": {"metrics": [Length]}})


def test_a_file_cannot_hold_it(config: dict[str, Any], squares: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"strategy 'squares' from this process .*: is no installed plugin, and no file"
    ):
        MergeConfig(**config | {"strategy": imported(squares)}).to_yaml()


def test_what_it_does_wrong_is_to_its_name(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WEIGHTS_SQUARED.replace("weight**2", "weight / 0"))
    with pytest.raises(
        PluginError, match=r"strategy 'wrong' from this process \(wrong, blake3 .*\) raised ZeroDivisionError"
    ):
        merge(MergeConfig(**config | {"strategy": imported(tmp_path / "wrong.py")}))


def test_merges_within_a_merge_take_it_too(
    config: dict[str, Any], squares: Path, models: SimpleNamespace, command: Command, path: Path
) -> None:
    """From Python and by name; the manifest and the card name it, and another source is another plan."""

    def nested(strategy: Any) -> dict[str, Any]:
        inner = {"strategy": strategy, "models": config["models"]}
        return config | {"models": [{"name": "inner", "merge": inner}, {"path": str(models.base)}]}

    of_python = ModelMerger(MergeConfig(**nested(imported(squares)))).plan().digest
    path.write_text(json.dumps(nested("squares")))
    of_command = json.loads(command("plan", path, "--no-trial", "--plugin", squares, "--json").out)["digest"]
    squares.write_text(WEIGHTS_SQUARED + "\n")
    assert ModelMerger(MergeConfig(**nested(imported(squares)))).plan().digest != of_python == of_command
    merge(MergeConfig(**nested(imported(squares))))
    digest = blake3(squares.read_bytes()).hexdigest()
    rows = json.loads((models.output / "modelmerger.json").read_bytes())["plugins"]
    assert [row["name"] for row in rows if row.get("digest") == digest] == ["squares"]
    assert digest in (models.output / "README.md").read_text()
