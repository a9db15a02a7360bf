"""What the page says about answers: each counted once, those to one prompt together."""

from attrs import evolve
from modelmerger import Finding, Sample, ValidationReport
from modelmerger_plugins.report_page.answered import asked, confusions


def report_of(samples: list[Sample], *models: str) -> ValidationReport:
    """The merged model is the one that a finding is about first."""
    findings = [Finding(metric="m", value=1.0, evidence="", model=name) for name in ("merged", *models)]
    return ValidationReport(directory="/m", validators={}, settings={}, findings=findings, samples=samples)


def test_confusion_counts_every_answer_once() -> None:
    said = [
        ("gulf", "gulf"),
        ("gulf", "gulf"),
        ("gulf", "msa"),
        ("egyptian", ""),
        ("egyptian", "levantine"),
        ("", "msa"),
    ]
    samples = [
        Sample(prompt=str(i), answer="x", label=d, answered_label=n, model="merged") for i, (d, n) in enumerate(said)
    ]
    (found,) = confusions(report_of(samples))
    assert found.answered == ["gulf", "egyptian", "levantine", "msa", "no label"]
    assert {name: [count for count, _, _ in cells] for name, cells in found.rows} == {
        "gulf": [2, 0, 0, 1, 0],
        "egyptian": [0, 0, 1, 0, 1],
    }
    assert (found.right, found.total) == (2, 5)
    unknown = [evolve(sample, answered_label="") for sample in samples]
    assert confusions(report_of(unknown)) == []


def test_answers_to_one_prompt_stand_together_the_merged_model_first() -> None:
    order = [("p", "a"), ("q", "a"), ("p", "merged"), ("q", "merged")]
    samples = [Sample(prompt=p, answer="x", model=m) for p, m in order]
    found = asked(report_of(samples, "a"))
    assert [(one.prompt, [sample.model for sample in one.answers]) for one in found] == [
        ("p", ["merged", "a"]),
        ("q", ["merged", "a"]),
    ]
