"""Which validators of others run, and what each is told: its options are keys of `validation`."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from modelmerger import ConfigError, MergeConfig, PluginError, ValidationReport, merge

from tests.core.plugging import install

Distribution = Callable[..., Path]
DEPTH = """
from attrs import field, frozen
from modelmerger import Finding, hookimpl, must_be_between

metrics = {"depth": "lower"}

@frozen(kw_only=True)
class Options:
    levels: int = field(default=3, validator=must_be_between(1, 9))
    ruler: str = "tape"

@hookimpl
def wants_validation(settings):
    return bool(settings.test_prompts)

@hookimpl
def validate_model(subject, settings, options):
    yield Finding(metric="depth", value=options.levels * settings.seed, evidence=f"by {options.ruler}")
"""


@pytest.fixture
def depth(distribution: Distribution) -> str:
    """The module of an installed validator that runs by default where there are prompts."""
    (module,) = install(distribution, [("default validator", "depth", DEPTH)])
    return module


def report_of(config: dict[str, Any], **validation: Any) -> ValidationReport:
    """Of a merge; the validator does not look at its model, so that none is loaded."""
    report = merge(MergeConfig(**config, validation=validation)).validation
    assert report is not None
    return report


def problems(config: dict[str, Any], **validation: Any) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        MergeConfig(**config, validation=validation)
    return [str(problem) for problem in refused.value.problems]


@pytest.mark.usefixtures("depth")
@pytest.mark.parametrize(
    ("told", "value", "evidence"),
    [({}, 21, "by tape"), ({"levels": 5, "ruler": "string"}, 35, "by string")],
)
def test_a_validator_is_handed_its_options_and_the_report_says_them(
    config: dict[str, Any], told: dict[str, Any], value: float, evidence: str
) -> None:
    report = report_of(config, metrics=["depth"], seed=7, **told)
    (finding,) = report.findings
    assert (finding.metric, finding.value, finding.evidence) == ("depth", value, evidence)
    said = {"levels": 3, "ruler": "tape", "seed": 7, "metrics": ["depth"]} | told
    assert {key: report.settings[key] for key in said} == said


@pytest.mark.usefixtures("depth")
@pytest.mark.parametrize(
    ("validation", "problem"),
    [
        ({"levls": 2}, "validation: unknown key 'levls', did you mean 'levels'?"),
        ({"levels": 10}, "validation.levels: must be in [1, 9], got 10"),
        ({"levels": "deep"}, "validation.levels: must be a whole number, got 'deep'"),
        ({"sampel_size": 2}, "validation: unknown key 'sampel_size', did you mean 'sample_size'?"),
    ],
)
def test_what_is_wrong_with_them_is_said_with_its_place(
    config: dict[str, Any], validation: dict[str, Any], problem: str
) -> None:
    assert problems(config, metrics=["depth"], **validation) == [problem]


@pytest.mark.usefixtures("depth")
def test_the_options_of_a_validator_that_does_not_run_are_said_to_be_its(config: dict[str, Any]) -> None:
    (problem,) = problems(config, metrics=["perplexity"], levels=2)
    assert (
        problem
        == "validation: 'levels' belongs to depth from acme-merge 1.0, and the validator is perplexity. Leave it out"
    )


def test_two_validators_of_one_run_may_not_share_an_option(distribution: Distribution, config: dict[str, Any]) -> None:
    other = DEPTH.replace('{"depth"', '{"height"').replace('ruler: str = "tape"', "")
    install(distribution, [("validator", "depth", DEPTH), ("validator", "height", other)])
    with pytest.raises(
        PluginError, match=r"option 'levels' is declared twice: by validator 'depth' from acme-merge 1\.0 and"
    ):
        MergeConfig(**config, validation={"metrics": ["depth", "height"]})


def test_by_default_a_validator_runs_where_it_wants_to(depth: str, config: dict[str, Any]) -> None:
    asked = {"test_prompts": ["x"], "sample_size": 1, "max_new_tokens": 1}
    report = report_of(config, **asked)
    assert "depth" in report.validators
    assert depth in sys.modules
    overwriting = config | {"options": {"overwrite": True}}
    assert "depth" not in report_of(overwriting, **(asked | {"test_prompts": []})).validators


def test_whether_it_wants_to_run_may_follow_from_its_own_options(
    distribution: Distribution, config: dict[str, Any]
) -> None:
    source = DEPTH.replace("wants_validation(settings):", "wants_validation(settings, options):").replace(
        "return bool(settings.test_prompts)", "return options.levels > 5"
    )
    install(distribution, [("default validator", "depth", source)])
    asked = {"test_prompts": [], "sample_size": 1, "max_new_tokens": 1}
    assert "depth" in report_of(config, **asked, levels=6).validators
    overwriting = config | {"options": {"overwrite": True}}
    assert "depth" not in report_of(overwriting, **asked).validators


def test_a_validator_that_is_not_asked_is_not_imported(
    depth: str, config: dict[str, Any], command: Callable[..., SimpleNamespace]
) -> None:
    MergeConfig(**config)
    MergeConfig(**config, validation={})
    MergeConfig(**config, validation={"metrics": ["perplexity"]})
    assert command("plugins").status == 0
    assert depth not in sys.modules


def test_a_validator_of_no_default_group_is_neither_asked_nor_imported(
    distribution: Distribution, config: dict[str, Any]
) -> None:
    (module,) = install(distribution, [("validator", "depth", DEPTH)])
    MergeConfig(**config, validation={"test_prompts": ["x"]})
    assert module not in sys.modules
    MergeConfig(**config, validation={"metrics": ["depth"]})
    assert module in sys.modules


def test_a_default_validator_must_say_yes_or_no(distribution: Distribution, config: dict[str, Any]) -> None:
    source = DEPTH.replace("return bool(settings.test_prompts)", "return 'always'")
    install(distribution, [("default validator", "depth", source)])
    with pytest.raises(PluginError, match="wants_validation gave always instead of True or False"):
        MergeConfig(**config, validation={"test_prompts": ["x"]})


@pytest.mark.usefixtures("depth")
def test_what_is_wrong_with_its_options_hides_no_threshold(config: dict[str, Any]) -> None:
    assert problems(config, metrics=["depth"], levels=10, thresholds={"deepth": 1, "depth": 2}) == [
        "validation.levels: must be in [1, 9], got 10",
        "validation.thresholds: no metric is named 'deepth', did you mean 'depth'? (depth finds depth)",
    ]


def test_a_default_validator_that_is_declared_as_nothing_else_is_said(
    distribution: Distribution, config: dict[str, Any], command: Callable[..., SimpleNamespace]
) -> None:
    distribution("acme-merge", "1.0", "[modelmerger.default_validators]\nbleu = acme_never_imported\n")
    MergeConfig(**config)
    MergeConfig(**config, validation={"metrics": ["perplexity"]})
    with pytest.raises(PluginError) as caught:
        MergeConfig(**config, validation={"quick_test": True})
    assert str(caught.value) == (
        "validator 'bleu' from acme-merge 1.0 is in modelmerger.default_validators alone, so it never runs. "
        "Declare it in modelmerger.validators too, or set MODELMERGER_DISABLE_PLUGINS=bleu."
    )
    listed = command("plugins").out
    assert "bleu               acme-merge 1.0  (only in modelmerger.default_validators, so never asked)" in listed
