"""Validations of models that do not predict the next token: measured by whoever knows how, and by nobody else."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from inputs.tiny_models import TEXTS, load
from modelmerger import MergeConfig, ValidationReport, merge

from tests.core.plugging import install
from tests.core.validation.other_kinds import encoder, encoder_decoder

__all__ = ["encoder", "encoder_decoder"]
pytestmark = pytest.mark.usefixtures("tokenizers_here")
Distribution = Callable[..., Path]
SIMILARITY = """
import torch
from modelmerger import Finding, UnmeasurableError, hookimpl

metrics = {"similarity": "higher", "drift": "lower"}

def embedded(opened, texts):
    inputs = opened.tokenizer(texts, padding=True, return_tensors="pt").to(opened.device)
    with torch.inference_mode():
        states = opened.model(**inputs, output_hidden_states=True).hidden_states[-1]
    mask = inputs.attention_mask[..., None]
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)

@hookimpl
def validate_model(subject):
    texts = [text for group in subject.texts.values() for text in group]
    subject.tokenizer.pad_token = subject.tokenizer.eos_token
    own = embedded(subject, texts)
    yield Finding(metric="similarity", value=float(own[0] @ own[1]), evidence="the first two texts")
    other = subject.open(subject.sources[0])
    other.tokenizer.pad_token = other.tokenizer.eos_token
    drift = 1 - (own * embedded(other, texts)).sum(-1)
    yield Finding(metric="drift", value=float(drift.mean()), evidence=f"{len(texts)} texts beside {other.name}")
"""


def validated(made: SimpleNamespace, tmp_path: Path, **validation: Any) -> tuple[ValidationReport, Path]:
    dataset = tmp_path / "texts.txt"
    dataset.write_text("\n".join(TEXTS))
    config = MergeConfig(
        strategy="weighted",
        models=[{"path": str(made.a)}, {"path": str(made.b)}],
        output_path=str(tmp_path / "merged"),
        validation={"dataset": str(dataset), **validation},
    )
    report = merge(config).validation
    assert report is not None
    return report, tmp_path / "merged"


def embedding(made: SimpleNamespace, directory: Path, text: str) -> torch.Tensor:
    """The mean of the last hidden states, of unit length, from a pass over one text without padding."""
    bert = load(directory)[0].bert
    with torch.no_grad():
        states = bert(torch.tensor([made.words.encode(text)])).last_hidden_state[0].double()
    mean = states.mean(0)
    return mean / mean.norm()


def test_a_third_partys_validator_measures_the_embeddings_of_an_encoder(
    encoder: SimpleNamespace, distribution: Distribution, tmp_path: Path
) -> None:
    install(distribution, [("validator", "acme", SIMILARITY)])
    report, merged = validated(encoder, tmp_path, metrics=["acme"], thresholds={"similarity": -1})
    own = [embedding(encoder, merged, text) for text in TEXTS]
    source = [embedding(encoder, encoder.a, text) for text in TEXTS]
    drift = sum(float(1 - one @ other) for one, other in zip(own, source, strict=True)) / len(TEXTS)
    assert report.metrics["similarity"] == pytest.approx(float(own[0] @ own[1]), abs=1e-5)
    assert report.metrics["drift"] == pytest.approx(drift, abs=1e-5)
    assert drift > 1e-3
    assert report.passed


def test_the_validator_of_the_how_to_page_measures_an_encoder(
    encoder: SimpleNamespace, distribution: Distribution, tmp_path: Path
) -> None:
    page = Path(__file__).parents[3] / "docs/how-to/write-a-validator.md"
    *_, source = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    install(distribution, [("validator", "acme", source)])
    report, merged = validated(encoder, tmp_path, metrics=["acme"])
    own = [embedding(encoder, merged, text) for text in TEXTS]
    pairs = [float(one @ other) for one, other in itertools.combinations(own, 2)]
    assert report.metrics["alikeness"] == pytest.approx(sum(pairs) / len(pairs), abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("encoder", "BertForMaskedLM is not a model that predicts the next token of a text"),
        ("encoder_decoder", "T5ForConditionalGeneration is not a model that predicts the next token of a text"),
    ],
)
def test_what_needs_the_next_token_is_not_measured_and_says_so(
    request: pytest.FixtureRequest, kind: str, reason: str, tmp_path: Path
) -> None:
    report, _ = validated(
        request.getfixturevalue(kind),
        tmp_path,
        metrics=["perplexity", "coherence", "fluency", "dialect_prompts"],
        test_prompts=TEXTS[:2],
        max_new_tokens=4,
        compare_with_sources=True,
    )
    assert {finding.model for finding in report.findings} == {"merged", "a", "b"}
    assert {(finding.value, finding.evidence) for finding in report.findings} == {(None, reason)}
    assert report.samples == []
    assert report.passed
