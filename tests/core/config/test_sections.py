"""Sections that plugins of others bring: top-level keys of the config, checked against the plugin's class and handed to it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger import ConfigError, MergeConfig, ModelMerger, PluginError
from modelmerger.testing import settings_of

from tests.core.plugging import install

Distribution = Callable[..., Path]
RECIPE = """
from attrs import frozen
from modelmerger import Problem, Section, hookimpl

@frozen(kw_only=True)
class Recipe:
    spice: str = "none"
    spoons: int = 1

sections = [Section("recipe", Recipe)]

@hookimpl
def check_compatibility(settings):
    recipe = settings.sections["recipe"]
    said = "without a recipe" if recipe is None else f"with {recipe.spoons} spoons of {recipe.spice}"
    return [Problem(said, severity="note")]
"""
CONFIG: dict[str, Any] = {"strategy": "weighted", "models": [{"path": "./a"}, {"path": "./b"}]}


def problems(**config: Any) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        MergeConfig(**{**CONFIG, **config})
    return [str(problem) for problem in refused.value.problems]


@pytest.fixture
def _recipes(distribution: Distribution) -> None:
    install(distribution, [("plugin", "cook", RECIPE)])


@pytest.mark.usefixtures("_recipes")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"recipe": {"spice": "cumin", "spoons": 2}}, "with 2 spoons of cumin"),
        ({"recipe": {"spoons": 3}}, "with 3 spoons of none"),
        ({"recipe": {}}, "without a recipe"),
        ({}, "without a recipe"),
    ],
)
def test_a_plugin_is_handed_its_section(
    models: SimpleNamespace, config: dict[str, Any], given: dict[str, Any], said: str
) -> None:
    notes = ModelMerger(MergeConfig(**config, **given)).check_compatibility()
    assert said in [note.message for note in notes]


@pytest.mark.usefixtures("_recipes")
def test_a_section_is_a_part_of_the_config_as_the_core_keys_are(tmp_path: Path) -> None:
    config = MergeConfig(**CONFIG, recipe={"spice": "cumin"})
    assert config.recipe == {"spice": "cumin"}
    assert MergeConfig(**CONFIG).recipe == {}
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert MergeConfig.from_file(tmp_path / "config.yaml") == config
    assert settings_of(config.as_dict()).given["recipe"] == {"spice": "cumin"}
    config.recipe = {"spoons": "many"}
    with pytest.raises(ConfigError, match=r"^recipe\.spoons: must be a whole number, got 'many'$"):
        ModelMerger(config).check_compatibility()


@pytest.mark.usefixtures("_recipes")
def test_what_is_unknown_is_said_with_what_comes_near() -> None:
    assert problems(recipe={"spcie": "cumin"}) == ["recipe: unknown key 'spcie', did you mean 'spice'?"]
    assert problems(recipe={"oven": 180}) == ["recipe: unknown key 'oven'"]
    assert problems(recipie={"spice": "cumin"}) == ["config: unknown key 'recipie', did you mean 'recipe'?"]
    assert problems(recipe="cumin") == ["recipe: must be a mapping, got 'cumin'"]


def test_without_the_plugin_there_is_no_such_key() -> None:
    assert problems(recipe={"spice": "cumin"}) == ["config: unknown key 'recipe'"]
    with pytest.raises(AttributeError):
        _ = MergeConfig(**CONFIG).recipe


def test_two_plugins_with_one_section_are_refused(distribution: Distribution) -> None:
    install(distribution, [("plugin", "cook", RECIPE)])
    install(distribution, [("plugin", "chef", RECIPE)], "other-merge", "2.0")
    with pytest.raises(PluginError) as refused:
        MergeConfig(**CONFIG)
    assert str(refused.value) == (
        "section 'recipe' is declared twice: by plugin 'chef' from other-merge 2.0 and by plugin 'cook' from acme-merge 1.0; "
        "switch one of them off."
    )


@pytest.mark.parametrize("key", ["strategy", "models", "base_model", "output_path", "options", "validation"])
def test_a_section_named_like_a_key_of_the_core_is_refused(distribution: Distribution, key: str) -> None:
    install(distribution, [("plugin", "cook", RECIPE.replace('Section("recipe"', f'Section("{key}"'))])
    with pytest.raises(PluginError) as refused:
        MergeConfig(**CONFIG)
    assert str(refused.value) == (
        f"section '{key}' is declared twice: by the core and by plugin 'cook' from acme-merge 1.0; "
        "rename it in plugin 'cook' from acme-merge 1.0."
    )


def test_a_section_of_a_built_in_plugin_cannot_be_taken(distribution: Distribution) -> None:
    install(distribution, [("plugin", "cook", RECIPE.replace('Section("recipe"', 'Section("peft_config"'))])
    with pytest.raises(
        PluginError, match=r"section 'peft_config' is declared twice: .* by plugin 'cook' from acme-merge"
    ):
        MergeConfig(**CONFIG)
