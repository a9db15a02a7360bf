"""What plugins answer about texts and labels is checked, and a wrong answer names who gave it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger import ConfigError, MergeConfig, PluginError, UnmeasurableError
from modelmerger.hooks.assembly import Hooks, assemble, plugins_of
from modelmerger.hooks.registry import DISABLE, Registry

from tests.core.plugging import install

Distribution = Callable[..., Path]
ANSWERS = """
from modelmerger import LabelScores, hookimpl

@hookimpl
def {hook}({argument}):
    return {answer}
"""


def answering(distribution: Distribution, hook: str, argument: str, answer: str) -> Hooks:
    install(distribution, [("plugin", "acme", ANSWERS.format(hook=hook, argument=argument, answer=answer))])
    return assemble(plugins_of(Registry.installed(), None))


def test_the_built_ins_answer_where_nobody_else_does() -> None:
    hooks = assemble(plugins_of(Registry.installed(), None))
    assert set(hooks.validation.provide_texts("scoring")) == {
        "egyptian",
        "english",
        "gulf",
        "levantine",
        "maghrebi",
        "msa",
    }
    assert hooks.validation.score_labels(["شلونك", "x"]).best_labels()[1] is None


def test_another_plugin_takes_the_place_of_the_built_in(distribution: Distribution) -> None:
    hooks = answering(distribution, "provide_texts", "purpose", "{'sudanese': [purpose]}")
    assert hooks.validation.provide_texts("prompting") == {"sudanese": ["prompting"]}


def test_where_the_built_ins_are_off_nothing_can_be_measured() -> None:
    hooks = assemble(plugins_of(Registry.installed({DISABLE: "arabic_texts,arabic_dialects"}), None))
    with pytest.raises(UnmeasurableError, match="no plugin has texts for scoring"):
        hooks.validation.provide_texts("scoring")
    with pytest.raises(UnmeasurableError, match="no plugin scores labels"):
        hooks.validation.score_labels(["x"])


@pytest.mark.parametrize("answer", ["['a text']", "{'gulf': 'a text'}", "{1: ['a text']}", "{'gulf': [1]}", "3"])
def test_texts_are_lists_by_label(distribution: Distribution, answer: str) -> None:
    hooks = answering(distribution, "provide_texts", "purpose", answer)
    with pytest.raises(PluginError, match=r"plugin 'acme' from acme-merge 1.0.*instead of lists of texts by label"):
        hooks.validation.provide_texts("scoring")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("['gulf']", "instead of LabelScores or None"),
        ("LabelScores(scorer='x', stated='', labels=('a', 'b'), rows=[(1, 0)])", "gave 1 rows instead of 2 rows"),
        ("LabelScores(scorer='x', stated='', labels=('a', 'b'), rows=[(1, 0), (1,)])", "of one number a label"),
        ("1 / 0", r"plugin 'acme' from acme-merge 1.0 raised ZeroDivisionError in score_labels"),
    ],
)
def test_scores_are_a_row_a_text_of_a_number_a_label(distribution: Distribution, answer: str, reason: str) -> None:
    hooks = answering(distribution, "score_labels", "texts", answer)
    with pytest.raises(PluginError, match=reason) as caught:
        hooks.validation.score_labels(["x", "y"])
    assert "acme" in str(caught.value)


OF_OPTIONS = """
from attrs import frozen
from modelmerger import ConfigError, Finding, hookimpl

@frozen
class Options:
    letters: str = "ab"

def metrics(options):
    if options.letters == "none":
        raise ConfigError("give 'letters'")
    return {f"share_of_{letter}": "higher" for letter in options.letters if 1 / (letter != "z")}

@hookimpl
def validate_model(subject, options):
    yield Finding(metric="share_of_" + options.letters[0], value=1, evidence="x")
"""


def test_metrics_may_follow_from_the_options_of_the_validator(
    distribution: Distribution, config: dict[str, Any], command: Callable[..., SimpleNamespace]
) -> None:
    install(distribution, [("validator", "letters", OF_OPTIONS)])

    def found(**validation: Any) -> list[str]:
        given = {**config, "validation": {"metrics": ["letters"], **validation}}
        return list(MergeConfig(**given).resolved()[1].validation.metrics)

    assert found() == ["share_of_a", "share_of_b"]
    assert found(letters="x", thresholds={"share_of_x": 0.5}) == ["share_of_x"]
    with pytest.raises(ConfigError, match=r"letters finds share_of_x"):
        found(letters="x", thresholds={"share_of_a": 0.5})
    with pytest.raises(ConfigError, match="give 'letters'"):
        found(letters="none")
    with pytest.raises(PluginError, match="metrics raised ZeroDivisionError"):
        found(letters="z")
    with pytest.raises(PluginError, match="does not say what it finds"):
        found(letters="")
    assert "letters" in command("plugins", "letters").out
