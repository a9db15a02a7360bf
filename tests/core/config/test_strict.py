"""With `strict`, each warning is an error of its stage, whoever gives it; nothing is written, and the plan is the same."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger import ConfigError, MergeConfig, ModelCompatibilityError, ModelMerger, merge

from tests.core.plugging import install

WARNS = "from modelmerger import Problem, ReadConfig, hookimpl\nimport json\n\n@hookimpl\ndef {hook}({arguments}):\n    {body}\n"
PROBLEM = "Problem('mind {hook}', 'place', severity={severity!r})"
CASES = {
    "read_config": ("reader", "text", "return ReadConfig(json.loads(text), [{problem}])", ConfigError, 2),
    "check_config": ("plugin", "", "yield {problem}", ConfigError, 2),
    "check_compatibility": ("plugin", "", "yield {problem}", ModelCompatibilityError, 3),
}


def warning(distribution: Callable[..., Path], hook: str, severity: str = "warning") -> None:
    kind, arguments, body, *_ = CASES[hook]
    problem = PROBLEM.format(hook=hook, severity=severity)
    source = WARNS.format(hook=hook, arguments=arguments, body=body.format(problem=problem))
    install(distribution, [(kind, "warner", source)])


@pytest.fixture
def path(models: SimpleNamespace, config: dict[str, Any]) -> Path:
    import json

    file: Path = models.folder / "merge.json"
    file.write_text(json.dumps(config))
    return file


@pytest.mark.parametrize("hook", CASES)
@pytest.mark.parametrize("command_name", ["check", "plan --no-trial", "merge"])
def test_a_warning_ends_every_command_with_the_status_of_its_stage(
    distribution: Callable[..., Path],
    command: Callable[..., SimpleNamespace],
    path: Path,
    models: SimpleNamespace,
    hook: str,
    command_name: str,
) -> None:
    warning(distribution, hook)
    before = sorted(models.folder.iterdir())
    strict = command(*command_name.split(), path, "--strict")
    assert (strict.status, strict.out) == (CASES[hook][4], "")
    assert strict.err == f"error: place: mind {hook}\n" or strict.err.startswith(
        f"error: place: mind {hook} (so reader"
    )
    assert sorted(models.folder.iterdir()) == before
    assert command(*command_name.split(), path).status == 0


@pytest.mark.parametrize("hook", CASES)
def test_a_note_is_none(
    distribution: Callable[..., Path], command: Callable[..., SimpleNamespace], path: Path, hook: str
) -> None:
    warning(distribution, hook, "note")
    result = command("check", path, "--strict")
    assert result.status == 0
    assert f"note: place: mind {hook}" in result.err


@pytest.mark.parametrize("hook", CASES)
def test_python_can_ask_for_it_too(
    distribution: Callable[..., Path], path: Path, config: dict[str, Any], hook: str
) -> None:
    warning(distribution, hook)
    with pytest.raises(CASES[hook][3], match=f"mind {hook}"):
        ModelMerger(MergeConfig.from_file(path, strict=True)).plan()
    made = MergeConfig.from_file(path)
    made.strict = True
    with pytest.raises(CASES[hook][3], match=f"mind {hook}"):
        merge(made)


def test_warnings_about_weights_are_errors_of_the_config(
    command: Callable[..., SimpleNamespace], path: Path, models: SimpleNamespace
) -> None:
    shadowed = "models[0].weight={'*mlp*': 1, '*layers.0.mlp*': 2, default: 1}"
    assert "warning: models[0].weight: the pattern '*layers.0.mlp*'" in command("check", path, "--set", shadowed).err
    for name in ("check", "plan", "merge"):
        result = command(name, path, "--set", shadowed, "--strict")
        assert result.status == 2
        assert result.err.startswith("error: models[0].weight: the pattern '*layers.0.mlp*'")
    assert not models.output.exists()


def test_it_is_no_part_of_the_plan_and_no_key_of_a_file(config: dict[str, Any]) -> None:
    assert (
        ModelMerger(MergeConfig(**config, strict=True)).plan().digest
        == ModelMerger(MergeConfig(**config)).plan().digest
    )
    assert "strict" not in MergeConfig(**config, strict=True).as_dict()
    with pytest.raises(ConfigError, match="config: unknown key 'strict'"):
        MergeConfig.from_dict(config | {"strict": True})
