"""Adapters in a validation: what is one, which of its names are measured, and that a check writes nothing."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import directory_state
from inputs.tiny_models import load, tied
from modelmerger import InputError, MergeError, Settings
from modelmerger.config.resolve import resolve
from modelmerger.validation.adapters import materialise
from modelmerger.validation.candidate import Candidate
from modelmerger.validation.running import validate
from modelmerger.values.settings import ValidationSettings

__all__ = ["tied"]


@pytest.fixture
def adapter(tied: SimpleNamespace, tmp_path: Path) -> Path:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(load(tied.base)[0], lora).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def settings_of(adapter: Path, tied: SimpleNamespace, name: str) -> Settings:
    config = {"strategy": "weighted", "models": [{"path": str(adapter)}], "base_model": str(tied.base)}
    settings, _ = resolve({**config, "peft_config": {"adapter_names": [name]}})
    return settings


def test_a_full_model_is_not_an_adapter(tied: SimpleNamespace, tmp_path: Path) -> None:
    assert materialise(tied.a, True, None, tmp_path / "made") is None
    assert materialise(tied.a, True, None, None) is None
    assert not (tmp_path / "made").exists()


def test_a_check_writes_nothing(adapter: Path, tied: SimpleNamespace, tmp_path: Path) -> None:
    before = directory_state(tmp_path)
    assert materialise(adapter, True, settings_of(adapter, tied, "default"), None) == adapter
    assert directory_state(tmp_path) == before


def test_the_names_of_the_config_are_those_of_sources(
    adapter: Path, tied: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The merged adapter is the directory itself."""
    settings = settings_of(adapter, tied, "one")
    caplog.set_level(logging.ERROR, "modelmerger")  # the merge that folds sets another
    assert materialise(adapter, True, settings, tmp_path / "made") == tmp_path / "made"
    assert logging.getLogger("modelmerger").level == logging.ERROR
    assert (tmp_path / "made/model.safetensors").exists()
    with pytest.raises(MergeError, match="one"):
        materialise(adapter, False, settings, None)
    adapter.rename(tmp_path / "one")
    adapter.mkdir()
    (tmp_path / "one").rename(adapter / "one")
    (adapter / "adapter_config.json").write_text("{}")
    assert materialise(adapter, False, settings, None) == adapter


def test_an_adapter_that_cannot_be_folded_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    reason = "is an adapter of the kind None, which cannot be merged"
    with pytest.raises(InputError, match=reason):
        materialise(folder, True, None, None)
    report = validate(Candidate(directory=folder, device_map="cpu"), ValidationSettings(sample_size=1))
    assert {finding.value for finding in report.findings} == {None}
    assert "small cannot be loaded: " in report.findings[0].evidence
    assert reason in report.findings[0].evidence
