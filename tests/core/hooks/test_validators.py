"""What plugins answer about texts and labels is checked, and a wrong answer names who gave it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from modelmerger import PluginError, UnmeasurableError
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
