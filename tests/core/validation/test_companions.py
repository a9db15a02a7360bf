"""What is written beside a published model after a validation: by whom, under which names, and old or new at every moment."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import directory_state
from modelmerger import Finding, MergeConfig, OutputError, Sample, ValidationReport, merge, verify
from modelmerger.validation.companions import write_companions

from tests.core.plugging import install
from tests.core.validation.assembled import always_on

Distribution = Callable[..., Path]
WRITES = """
from modelmerger import hookimpl

@hookimpl
def write_companions(directory, manifest, report):
    return {answer}
"""


@pytest.fixture
def published(config: dict[str, Any]) -> Path:
    return Path(merge(MergeConfig(**config)).output)


def report_on(directory: Path, value: float = 31.25) -> ValidationReport:
    finding = Finding(metric="perplexity", value=value, evidence="4 texts", model="merged")
    sample = Sample(prompt="شلونك؟", answer="زين", model="merged")
    return ValidationReport(directory=str(directory), validators={}, settings={}, findings=[finding], samples=[sample])


def write(directory: Path, report: ValidationReport | None = None) -> None:
    write_companions(directory, report or report_on(directory), always_on().validation)


def test_the_report_stands_beside_the_model_which_is_as_published(published: Path) -> None:
    write(published)
    write(published, report_on(published, 30.5))
    assert json.loads((published / "validation.json").read_bytes())["metrics"] == {"perplexity": 30.5}
    assert "شلونك؟" in (published / "validation.json").read_text(encoding="utf-8")
    umask = os.umask(0)
    os.umask(umask)
    assert (published / "validation.json").stat().st_mode & 0o777 == 0o666 & ~umask
    assert not [name for name in os.listdir(published) if name.endswith(".new")]
    verify(published)


def test_plugins_get_directory_manifest_and_report_and_the_core_writes(
    distribution: Distribution, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELMERGER_DISABLE_PLUGINS", "report_page")  # a page in place of the built-in one
    page = '{"report.html": f"{directory.name} {manifest[\'plan\']} {report.metrics}".encode()}'
    install(distribution, [("plugin", "page", WRITES.format(answer=page))])
    plan = json.loads((published / "modelmerger.json").read_bytes())["plan"]
    write(published)
    assert (published / "report.html").read_text() == f"merged {plan} {{'perplexity': 31.25}}"
    verify(published)


def test_a_plugin_may_write_under_any_name_that_is_not_taken(distribution: Distribution, published: Path) -> None:
    install(distribution, [("plugin", "sheet", WRITES.format(answer='{"نتائج.csv": str(report.metrics).encode()}'))])
    before = json.loads((published / "modelmerger.json").read_bytes())
    write(published)
    write(published, report_on(published, 30.5))
    assert (published / "نتائج.csv").read_text() == "{'perplexity': 30.5}"
    after = json.loads((published / "modelmerger.json").read_bytes())
    assert after == before | {"companions": [*before["companions"], "نتائج.csv"]}
    assert not [name for name in os.listdir(published) if name.endswith(".new")]
    (published / ".modelmerger.json.new").write_text("left by a kill")
    verify(published)


def test_a_file_that_no_validation_made_is_left_alone(distribution: Distribution, published: Path) -> None:
    install(distribution, [("plugin", "sheet", WRITES.format(answer='{"notes.txt": b""}'))])
    (published / "notes.txt").write_text("mine")
    before = directory_state(published)
    with pytest.raises(OutputError, match=r"notes.txt: is to be written, and no validation made it. Move it away"):
        write(published)
    assert directory_state(published) == before


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            '{"model.safetensors": b""}',
            "model.safetensors is written twice: by the merge and by plugin 'page' from acme",
        ),
        ('{"modelmerger.json": b""}', "modelmerger.json is written twice: by the manifest and by plugin 'page'"),
        ('{"../report.html": b""}', "wants to write '../report.html', which is not a plain file name with bytes"),
        ('{"pages/report.html": b""}', "wants to write 'pages/report.html', which is not a plain file name with bytes"),
        ('{"": b""}', "wants to write '', which is not a plain file name with bytes"),
        ('{"report.html": "text"}', "wants to write 'report.html', which is not a plain file name with bytes"),
        ('{"validation.json": b""}', "validation.json is written twice: by the report and by plugin 'page'"),
        (
            '["report.html"]',
            "plugin 'page' from acme-merge 1.0: write_companions gave .* instead of contents by file name",
        ),
        ("1 / 0", "plugin 'page' from acme-merge 1.0 raised ZeroDivisionError in write_companions"),
    ],
)
def test_the_validation_is_saved_without_what_a_plugin_may_not_write(
    distribution: Distribution, published: Path, caplog: pytest.LogCaptureFixture, answer: str, reason: str
) -> None:
    """And a plugin that fails loses nothing but its own files."""
    sheet = WRITES.format(answer='{"sheet.csv": b"1"}')
    install(distribution, [("plugin", "page", WRITES.format(answer=answer)), ("plugin", "sheet", sheet)])
    write(published)
    (said,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert re.search(reason, said)
    assert "MODELMERGER_DISABLE_PLUGINS=page switches it off." in said
    assert json.loads((published / "validation.json").read_bytes())["metrics"]
    assert (published / "sheet.csv").read_bytes() == b"1"
    assert verify(published)


def test_two_plugins_with_one_name_are_both_named(
    distribution: Distribution, published: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (WRITES.format(answer=f'{{"report.html": b"{name}"}}') for name in ("page", "sheet"))
    install(distribution, [("plugin", "page", first), ("plugin", "sheet", second)])
    write(published)
    assert re.search(r"written twice: by plugin '(page|sheet)' .* and by plugin '(page|sheet)'", caplog.text)
    assert (published / "report.html").read_bytes() in (b"page", b"sheet")


def test_no_link_is_followed_and_what_a_killed_run_left_is_replaced(published: Path, models: SimpleNamespace) -> None:
    bystander = models.folder / "bystander"
    bystander.write_text("untouched")
    (published / "validation.json").symlink_to(bystander)
    (published / ".validation.json.new").symlink_to(bystander)
    write(published)
    assert bystander.read_text() == "untouched"
    assert not (published / "validation.json").is_symlink()
    (published / ".validation.json.new").write_text("half")
    verify(published)
    write(published)
    assert not (published / ".validation.json.new").exists()


def test_a_directory_in_the_way_is_an_error_that_names_it(published: Path) -> None:
    (published / "validation.json").mkdir()
    with pytest.raises(OutputError, match=r"validation.json: is a directory where a file is to be written"):
        write(published)
