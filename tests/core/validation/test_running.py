"""From a merged model to a report: every key of `validation` has an effect, and what validators break is said."""

import gc
import json
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from inputs.tiny_models import TEXTS, arabic, load
from modelmerger import (
    ConfigError,
    MergeConfig,
    ModelMerger,
    PluginError,
    ValidationReport,
    merge,
    verify,
)
from modelmerger.validation.running import published_already

from tests.core.plugging import install

__all__ = ["arabic"]
pytestmark = pytest.mark.usefixtures("tokenizers_here")
Distribution = Callable[..., Path]
ALL = ["perplexity", "coherence", "fluency", "dialect_prompts"]
BRIEF = {"sample_size": 4, "max_new_tokens": 4}
LENGTH = """
from modelmerger import Finding, UnmeasurableError, hookimpl

metrics = {{"length": "lower", "count": "higher"}}

@hookimpl
def validate_model(settings, subject):
    yield Finding(metric="count", value=len(subject.prompts), evidence="prompts")
    {body}
"""


@pytest.fixture
def given(arabic: SimpleNamespace, tmp_path: Path) -> dict[str, Any]:
    return {
        "strategy": "weighted",
        "models": [{"path": str(arabic.a)}, {"path": str(arabic.b)}],
        "output_path": str(tmp_path / "merged"),
    }


@pytest.fixture(scope="module")
def merged(arabic: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelMerger, Any]:
    """A merger that has merged, and its model."""
    output = tmp_path_factory.mktemp("validating") / "merged"
    models = [{"path": str(arabic.a)}, {"path": str(arabic.b)}]
    merger = ModelMerger(MergeConfig(strategy="weighted", models=models, output_path=str(output)))
    return merger, merger.merge()


@pytest.fixture
def report_of(merged: tuple[ModelMerger, Any]) -> Callable[..., ValidationReport]:
    """The report on one merged model under settings."""
    merger, model = merged

    def validated(**validation: Any) -> ValidationReport:
        merger.config.validation = {**BRIEF, **validation}
        return merger.validate_merge(model)

    return validated


def found(report: ValidationReport, metric: str, model: str = "merged") -> Any:
    (finding,) = [f for f in report.findings if (f.metric, f.model, f.label) == (metric, model, "")]
    return finding


def test_a_merge_with_validation_returns_keeps_and_saves_the_report(given: dict[str, Any]) -> None:
    merger = ModelMerger(MergeConfig(**given, validation={**BRIEF, "metrics": ALL}))
    assert merger.validation_report is None
    model = merger.merge()
    report = merger.validation_report
    assert report is not None
    assert merger.merge_report is not None
    assert merger.merge_report.validation is report
    assert all(value is not None for value in report.metrics.values())
    assert set(report.metrics) == {
        *("perplexity", "bits_per_byte", "coherence", "repetition"),
        *("fluency", "arabic_letters", "broken_characters", "dialect_match"),
    }
    directory = Path(given["output_path"])
    saved = json.loads((directory / "validation.json").read_bytes())
    assert saved == json.loads(json.dumps(report.as_dict())) | {"directory": "merged"}
    assert "## Validation" in (directory / "README.md").read_text(encoding="utf-8")
    verify(directory)
    for other, kind in (("./merged", "str"), (directory, "PosixPath"), (None, "NoneType")):
        with pytest.raises(ConfigError, match=f"must be the model that merge\\(\\) returned, got {kind}\\. To measure"):
            merger.validate_merge(other)
    again = merger.validate_merge(model)
    assert again.findings == report.findings
    assert again.samples == report.samples
    assert merger.validation_report is again is merger.merge_report.validation


@pytest.mark.parametrize(
    ("validation", "ran"), [(None, False), ({}, False), ({"run_tests": False}, False), (BRIEF, True)]
)
def test_run_tests_is_on_where_a_validation_is_given(given: dict[str, Any], validation: Any, ran: bool) -> None:
    report = merge(MergeConfig(**given, validation=validation or {}))
    assert (report.validation is not None) is ran
    assert (Path(given["output_path"]) / "validation.json").exists() is ran


def test_before_a_merge_there_is_nothing_to_validate(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"nothing is merged yet.* Call merge\(\) first"):
        ModelMerger(MergeConfig(**given)).validate_merge(None)


def test_test_prompts_are_asked_and_their_answers_are_in_the_report(report_of: Callable[..., ValidationReport]) -> None:
    report = report_of(test_prompts={"gulf": [TEXTS[2]], "egyptian": [TEXTS[1]]}, metrics=["perplexity"])
    assert [(s.prompt, s.label, s.model) for s in report.samples] == [
        (TEXTS[2], "gulf", "merged"),
        (TEXTS[1], "egyptian", "merged"),
    ]
    assert all(sample.answer.strip() for sample in report.samples)
    assert report.validators.keys() == {"perplexity"}
    listed = report_of(test_prompts=TEXTS[:2])
    assert [sample.prompt for sample in listed.samples] == TEXTS[:2]
    assert listed.validators.keys() == {"perplexity", "dialect_prompts"}


def test_what_no_validator_asks_is_not_answered(report_of: Callable[..., ValidationReport]) -> None:
    assert report_of().samples == []


def test_metrics_names_the_validators(report_of: Callable[..., ValidationReport]) -> None:
    report = report_of(metrics=["coherence"])
    assert report.metrics.keys() == {"coherence", "repetition"}
    assert report.validators["coherence"].startswith("modelmerger ")


def test_quick_test_is_short(report_of: Callable[..., ValidationReport]) -> None:
    report = report_of(
        quick_test=True, sample_size=None, max_new_tokens=64, metrics=["perplexity", "coherence"], test_prompts=[]
    )
    assert "50 texts" in found(report, "perplexity").evidence
    assert len({sample.label for sample in report.samples}) == len(report.samples) == 5
    assert report.settings["max_new_tokens"] == 16


def test_sample_size_counts_texts_and_prompts(report_of: Callable[..., ValidationReport]) -> None:
    report = report_of(sample_size=3, metrics=["perplexity", "coherence"])
    assert found(report, "perplexity").evidence.startswith("3 texts")
    assert len(report.samples) == 3


def test_test_batch_size_changes_how_many_go_at_a_time_and_no_score(
    report_of: Callable[..., ValidationReport], merged: tuple[ModelMerger, Any]
) -> None:
    seen: list[int] = []
    hook = merged[1].register_forward_pre_hook(
        lambda _, given, named: seen.append(len((*given, *named.values())[0])), with_kwargs=True
    )
    one = report_of(test_batch_size=1, metrics=ALL)
    assert set(seen) == {1}
    four = report_of(test_batch_size=4, metrics=ALL)
    assert max(seen) == 4
    hook.remove()
    assert one.samples == four.samples
    assert [f.value for f in one.findings] == pytest.approx([f.value for f in four.findings], rel=1e-4)


def test_dataset_is_what_is_scored(
    report_of: Callable[..., ValidationReport], arabic: SimpleNamespace, tmp_path: Path
) -> None:
    tokens = len(arabic.words.encode(TEXTS[0], add_special_tokens=False))
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"text": TEXTS[0], "dialect": "msa"}) + "\n")
    report = report_of(dataset=str(path))
    assert f"1 text, {tokens} tokens, {len(TEXTS[0].encode())} bytes of {path}" in found(report, "perplexity").evidence
    assert {finding.label for finding in report.findings} == {"", "msa"}


def test_max_new_tokens_and_seed_decide_the_answers(report_of: Callable[..., ValidationReport]) -> None:
    def answers(**settings: Any) -> list[str]:
        return [sample.answer for sample in report_of(test_prompts=TEXTS, sample_size=5, **settings).samples]

    assert answers(seed=1) == answers(seed=1) != answers(seed=2)
    assert max(len(answer) for answer in answers(max_new_tokens=1)) < max(len(a) for a in answers(max_new_tokens=12))


def test_chat_template_is_used_as_asked(report_of: Callable[..., ValidationReport]) -> None:
    def answers(chat_template: Any) -> list[str]:
        report = report_of(test_prompts=TEXTS, sample_size=5, max_new_tokens=8, chat_template=chat_template)
        return [sample.answer for sample in report.samples]

    assert answers("auto") == answers(True) != answers(False)


def test_sources_are_compared_where_that_is_asked_for(
    report_of: Callable[..., ValidationReport], arabic: SimpleNamespace
) -> None:
    report = report_of(compare_with_sources=True, metrics=["perplexity", "fluency"])
    assert list(dict.fromkeys(f.model for f in report.findings)) == ["merged", "a", "b"]
    assert "under a " in found(report, "fluency").evidence
    assert "under b " in found(report, "fluency", "a").evidence
    assert len({found(report, "perplexity", model).value for model in ("merged", "a", "b")}) == 3
    assert report.metrics["perplexity"] == found(report, "perplexity").value
    assert {finding.model for finding in report_of().findings} == {"merged"}


def test_thresholds_hold_for_the_merged_model_as_a_whole(report_of: Callable[..., ValidationReport]) -> None:
    value = report_of().metrics["perplexity"]
    assert value is not None
    assert report_of(thresholds={"perplexity": value * 1.01}).passed
    report = report_of(thresholds={"perplexity": value * 0.99}, compare_with_sources=True)
    assert [(f.metric, f.model, f.label) for f in report.crossings] == [("perplexity", "merged", "")]
    assert not report.passed


def test_a_threshold_on_what_could_not_be_measured_is_crossed(given: dict[str, Any], arabic: SimpleNamespace) -> None:
    config = MergeConfig(**{**given, "models": given["models"][:1]}, validation={**BRIEF, "metrics": ["fluency"]})
    config.models = [{"path": load(arabic.a)[0]}]
    config.validation["thresholds"] = {"fluency": 50}
    report = merge(config).validation
    assert report is not None
    assert "has no tokenizer" in found(report, "fluency").evidence
    assert not report.passed


def test_a_model_without_a_config_is_said_to_be_unmeasurable(config: dict[str, Any], models: SimpleNamespace) -> None:
    for path in (models.a, models.b):
        (path / "config.json").unlink()
    report = merge(MergeConfig(**config, validation=BRIEF)).validation
    assert report is not None
    assert report.metrics == {"perplexity": None, "bits_per_byte": None}
    assert "has no config.json, so transformers cannot load it" in found(report, "perplexity").evidence


def test_a_third_partys_validator_is_used_by_its_name(
    distribution: Distribution, report_of: Callable[..., ValidationReport]
) -> None:
    body = 'yield Finding(metric="length", value=settings.new_tokens, evidence="x", unit="tokens")'
    install(distribution, [("validator", "acme", LENGTH.format(body=body))])
    report = report_of(metrics=["acme"], thresholds={"length": 3, "count": 1})
    assert report.metrics == {"count": 4, "length": 4}
    assert report.validators == {"acme": "acme-merge 1.0"}
    assert [f.metric for f in report.crossings] == ["length"]


def test_numbers_of_numpy_are_numbers(distribution: Distribution, report_of: Callable[..., ValidationReport]) -> None:
    body = 'import numpy; yield Finding(metric="length", value=numpy.float32(0.5), evidence="x")'
    install(distribution, [("validator", "acme", LENGTH.format(body=body))])
    report = report_of(metrics=["acme"])
    assert report.metrics["length"] == 0.5
    json.dumps(report.as_dict())


@pytest.mark.parametrize(
    ("body", "evidence"),
    [
        ('raise UnmeasurableError("no ruler")', "no ruler"),
        ("", "acme gave no number"),
        (
            'yield Finding(metric="length", value=float("nan"), evidence="3 answers")',
            "it came out as nan, of 3 answers",
        ),
        ('yield Finding(metric="length", value=float("inf"), evidence="x")', "it came out as inf, of x"),
    ],
)
def test_what_cannot_be_measured_has_no_value_and_says_why(
    distribution: Distribution, report_of: Callable[..., ValidationReport], body: str, evidence: str
) -> None:
    install(distribution, [("validator", "acme", LENGTH.format(body=body))])
    report = report_of(metrics=["acme", "perplexity"])
    assert (found(report, "length").value, found(report, "length").evidence) == (None, evidence)
    assert found(report, "count").value == 4
    assert found(report, "perplexity").value is not None
    json.dumps(report.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("1 / 0", "validator 'acme' from acme-merge 1.0 raised ZeroDivisionError in validate_model"),
        (
            "yield 3",
            "validator 'acme' from acme-merge 1.0: validate_model gave 3 instead of a Finding of length, count",
        ),
        ('yield Finding(metric="lenght", value=1, evidence="")', "instead of a Finding of length, count"),
        ('yield Finding(metric="length", value="1", evidence="")', "instead of a number"),
        ('yield Finding(metric="length", value=1.0, evidence="", label=None)', "gave label=None instead of a text"),
    ],
)
def test_what_a_validator_breaks_names_it_and_leaves_the_model_published(
    distribution: Distribution, given: dict[str, Any], body: str, reason: str
) -> None:
    install(distribution, [("validator", "acme", LENGTH.format(body=body))])
    with pytest.raises(PluginError) as caught:
        merge(MergeConfig(**given, validation={**BRIEF, "metrics": ["acme"]}))
    first, second = map(str, caught.value.problems)
    assert first == f"the merged model is at {given['output_path']}; its validation failed."
    assert reason in second
    verify(given["output_path"])


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "does not have the hook validate_model"),
        ("{head}", "does not say what it finds"),
        ('{head}\nmetrics = {{"length": "best"}}', "each lower or higher"),
        (
            '{head}\nmetrics = {{"perplexity": "lower"}}',
            "metric 'perplexity' is declared twice: by validator 'perplexity'",
        ),
    ],
)
def test_a_module_that_is_no_validator_is_refused_when_the_config_is_made(
    distribution: Distribution, given: dict[str, Any], source: str, reason: str
) -> None:
    head = "from modelmerger import hookimpl\n@hookimpl\ndef validate_model(): return []"
    install(distribution, [("validator", "acme", source.format(head=head))])
    with pytest.raises(PluginError, match=reason):
        MergeConfig(**given, validation={"metrics": ["perplexity", "acme"]})


def test_one_model_is_in_memory_at_a_time(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import Qwen2ForCausalLM

    opened: list[weakref.ref[Any]] = []
    from_pretrained = Qwen2ForCausalLM.from_pretrained

    def counted(*arguments: Any, **named: Any) -> Any:
        gc.collect()
        assert [model() for model in opened if model() is not None] == []
        model = from_pretrained(*arguments, **named)
        opened.append(weakref.ref(model))
        return model

    monkeypatch.setattr(Qwen2ForCausalLM, "from_pretrained", counted)
    merge(MergeConfig(**given, validation={**BRIEF, "metrics": ["fluency"]}))
    assert len(opened) == 3


def test_an_interruption_says_where_the_model_is(tmp_path: Path) -> None:
    said = r"the merged model is at .*merged; its validation was interrupted"
    with pytest.raises(KeyboardInterrupt, match=said), published_already(tmp_path / "merged"):
        raise KeyboardInterrupt


def test_the_model_in_a_temporary_directory_is_validated_too(given: dict[str, Any]) -> None:
    merger = ModelMerger(MergeConfig(strategy="weighted", models=given["models"], validation=BRIEF))
    model = merger.merge()
    assert merger.validation_report is not None
    assert os.path.exists(os.path.join(merger.validation_report.directory, "validation.json"))
    assert merger.validate_merge(model).metrics == merger.validation_report.metrics


def test_weights_that_stay_on_the_disk_are_measured_as_well(given: dict[str, Any]) -> None:
    config = MergeConfig(
        **given, options={"low_memory_mode": True}, validation={**BRIEF, "metrics": ["perplexity", "coherence"]}
    )
    merger = ModelMerger(config)
    model = merger.merge()
    loaded = merger.validation_report
    assert loaded is not None
    lazily = merger.validate_merge(model)
    assert [f.value for f in lazily.findings] == pytest.approx([f.value for f in loaded.findings], rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of peft
def test_a_merged_adapter_is_measured_on_its_base(
    arabic: SimpleNamespace, tmp_path: Path, command: Callable[..., SimpleNamespace]
) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    names = ("one", "two")
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        lora = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
        get_peft_model(load(arabic.base)[0], lora).save_pretrained(tmp_path / name)
    config = MergeConfig(
        strategy="weighted",
        models=[{"path": str(tmp_path / name)} for name in names],
        base_model=str(arabic.base),
        output_path=str(tmp_path / "merged"),
        peft_config={"merge_adapters": True},
        validation={**BRIEF, "compare_with_sources": True},
    )
    merger = ModelMerger(config)
    model = merger.merge()
    report = merger.validation_report
    assert report is not None
    assert found(report, "perplexity").value == pytest.approx(merger.validate_merge(model).metrics["perplexity"])
    brief = [part for key, value in BRIEF.items() for part in ("--set", f"validation.{key}={value}")]

    def perplexity(directory: Path) -> float:
        report = json.loads(command("validate", directory, *brief, "--json").out)
        return float(report["metrics"]["perplexity"])

    for seed, name in enumerate(names):  # each source on the base too, as PEFT puts it there
        whole = PeftModel.from_pretrained(load(arabic.base)[0], tmp_path / name).merge_and_unload()
        whole.save_pretrained(tmp_path / f"whole {seed}")
        arabic.words.save_pretrained(tmp_path / f"whole {seed}")
        alone = perplexity(tmp_path / f"whole {seed}")
        assert found(report, "perplexity", name).value == pytest.approx(alone, rel=1e-5)
    assert found(report, "perplexity").value == pytest.approx(perplexity(tmp_path / "merged"), rel=1e-5)
    assert abs(found(report, "perplexity").value - perplexity(arabic.base)) > 1e-3


def test_a_saved_copy_takes_the_companions_of_plugins_with_it(
    distribution: Distribution, given: dict[str, Any], tmp_path: Path
) -> None:
    source = "from modelmerger import hookimpl\n@hookimpl\ndef write_companions(): return {'sheet.csv': b'1'}"
    install(distribution, [("plugin", "sheet", source)])
    merger = ModelMerger(MergeConfig(**given, validation=BRIEF))
    model = merger.merge()
    merger.save_merged_model(model, tmp_path / "copy")
    verify(tmp_path / "copy")
    (tmp_path / "copy/sheet.csv").write_text("2")
    verify(tmp_path / "copy")
