"""The lm-eval validator against likelihoods by one plain forward pass, on a task of its own, without network."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inputs.tiny_models import load, tied
from modelmerger import ConfigError, MergeConfig, UnmeasurableError
from modelmerger_validators.lm_eval import Options, metrics, validate_model

from tests.validators.looking import looked_at, nats

__all__ = ["tied"]
HERE = importlib.util.find_spec("lm_eval") is not None
installed = pytest.mark.skipif(not HERE, reason="lm-eval is not installed: pip install modelmerger[lm-eval]")
foreign = pytest.mark.filterwarnings("ignore")  # lm-eval's own, and those of what it imports
QUESTIONS = [
    {"question": "ما عاصمة مصر؟", "choices": ["القاهرة", "دمشق"], "answer": 0},
    {"question": "ما عاصمة سوريا؟", "choices": ["القاهرة", "دمشق"], "answer": 1},
    {"question": "شلونك اليوم؟", "choices": ["زين", "كرسي", "سبعة"], "answer": 0},
    {"question": "عامل إيه؟", "choices": ["باب", "تمام"], "answer": 1},
]


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with the tasks `capitals` and `again`, of the same questions."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    for name in ("capitals", "again"):
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}, "cache_dir": str(tmp_path / "cache")},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "answer",
            "num_fewshot": None,
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        }
        (folder / f"{name}.yaml").write_text(json.dumps(task))
    return folder


def right(tied: SimpleNamespace, documents: int, words: Any = None) -> float:
    """The share of questions whose right choice is the likeliest, with what lm-eval puts before a choice: a space."""
    model, _ = load(tied.a)
    words = words or tied.words

    def ids(text: str) -> list[int]:
        return list(words.encode(text))

    hits = 0
    for one in QUESTIONS[:documents]:
        context = ids(one["question"])
        losses = [nats(model, context, ids(f"{one['question']} {choice}")[len(context) :]) for choice in one["choices"]]
        hits += losses.index(min(losses)) == one["answer"]
    return hits / documents


@installed
@foreign
@pytest.mark.usefixtures("tokenizers_here")
def test_accuracy_is_that_of_plain_likelihoods(tied: SimpleNamespace, tasks: Path) -> None:
    subject, settings = looked_at(tied)
    options = Options(tasks=("capitals", "again"), include_path=str(tasks), task_metrics=("acc", "f1"))
    whole, first, second, missing = validate_model(subject, settings, options)
    assert (first.label, second.label) == ("again", "capitals")
    assert first.value == second.value == whole.value == right(tied, 4)
    assert first.evidence.startswith("4 documents, 0-shot; lm-eval ")
    assert whole.evidence.startswith("mean over 2 tasks: again, capitals; lm-eval ")
    assert missing.value is None
    assert missing.evidence == "no task has f1. Name others in 'task_metrics': acc, acc_norm"


@installed
@foreign
@pytest.mark.usefixtures("tokenizers_here")
def test_a_limit_and_examples(tied: SimpleNamespace, tasks: Path) -> None:
    subject, settings = looked_at(tied)
    options = Options(tasks=("capitals",), include_path=str(tasks), limit=3)
    assert [f.value for f in validate_model(subject, settings, options)] == [right(tied, 3)] * 2
    found = list(
        validate_model(subject, settings, Options(tasks=("capitals",), include_path=str(tasks), num_fewshot=1))
    )
    assert found[1].evidence.startswith("4 documents, 1-shot; lm-eval ")


@installed
@foreign
@pytest.mark.usefixtures("tokenizers_here")
def test_a_task_that_there_is_not_or_that_fails_is_said(
    tied: SimpleNamespace, tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without lm-eval's own tasks, which take ten seconds to read."""
    import lm_eval.tasks

    manager = lm_eval.tasks.TaskManager
    monkeypatch.setattr(lm_eval.tasks, "TaskManager", lambda **given: manager(**{**given, "include_defaults": False}))
    subject, settings = looked_at(tied)
    (tasks / "questions.jsonl").unlink()
    for name, said in (
        ("capitols", "lm-eval has no task 'capitols'"),
        ("capitals", "lm-eval cannot run capitals on model: FileNotFound"),
    ):
        with pytest.raises(UnmeasurableError, match=said):
            list(validate_model(subject, settings, Options(tasks=(name,), include_path=str(tasks))))


@installed
@foreign
@pytest.mark.usefixtures("tokenizers_here")
def test_sources_stand_beside_the_merge_in_table_and_page(tied: SimpleNamespace, tasks: Path, tmp_path: Path) -> None:
    import transformers
    from modelmerger import ModelMerger

    merger = ModelMerger(
        MergeConfig(
            strategy="weighted",
            models=[{"path": str(tied.a)}, {"path": str(tied.b)}],
            output_path=str(tmp_path / "merged"),
            validation={
                "metrics": ["lm_eval"],
                "tasks": ["capitals"],
                "include_path": str(tasks),
                "compare_with_sources": True,
                "thresholds": {"lm_eval_acc": 1.0},
            },
            options={"low_memory_mode": True},  # its weights stay on the disk
        )
    )
    merger.merge()
    report = merger.validation_report
    assert report is not None
    words = transformers.AutoTokenizer.from_pretrained(tied.a)
    assert {f.model: f.value for f in report.findings if not f.label}["a"] == right(tied, 4, words)
    heading, whole, part = report.rows()
    assert heading == ["metric", "label", "merged", "a", "b", "unit"]
    assert (whole[:2], part[:2]) == (["lm_eval_acc", "all"], ["lm_eval_acc", "capitals"])
    assert [finding.metric for finding in report.crossings] == ["lm_eval_acc"]
    assert "lm_eval_acc" in (tmp_path / "merged/report.html").read_text(encoding="utf-8")


@installed
def test_metrics_are_those_that_are_asked_for() -> None:
    found = metrics(Options(tasks=("x",), task_metrics=("acc_norm", "word_perplexity")))
    assert found == {"lm_eval_acc_norm": "higher", "lm_eval_word_perplexity": "lower"}


@installed
@foreign
def test_the_ways_are_those_of_lm_eval() -> None:
    import lm_eval.api.metrics  # noqa: F401 (which registers them)
    from lm_eval.api.registry import is_higher_better
    from modelmerger_validators.lm_eval import WAYS

    assert {name: is_higher_better(name) for name in WAYS} == {name: way == "higher" for name, way in WAYS.items()}


def config(models: SimpleNamespace, **validation: Any) -> MergeConfig:
    return MergeConfig(
        strategy="weighted",
        models=[{"path": str(models.a)}, {"path": str(models.b)}],
        validation={"metrics": ["lm_eval"], **validation},
    )


@installed
@pytest.mark.parametrize(
    ("validation", "sentence"),
    [
        ({}, "metrics: lm_eval has no task to run. Give 'tasks' in 'validation'"),
        ({"tasks": ["x"], "include_path": "./nowhere"}, "include_path: ./nowhere is no folder"),
        ({"tasks": ["x"], "task_metrics": ["accuracy"]}, "task_metrics: must be some of acc, acc_norm"),
        ({"tasks": ["x"], "limit": 0}, "limit: must be in"),
        ({"tasks": ["x"], "thresholds": {"acc": 0.5}}, "no metric is named 'acc'"),
    ],
)
def test_a_mistake_is_an_error_of_the_config(
    models: SimpleNamespace, validation: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence.replace("(", "\\(")):
        config(models, **validation)


@pytest.mark.skipif(HERE, reason="lm-eval is installed")
def test_without_lm_eval_the_config_says_what_to_install(models: SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match=r"needs lm-eval, which is not installed. Install modelmerger\[lm-eval\]"):
        config(models, tasks=["x"])
