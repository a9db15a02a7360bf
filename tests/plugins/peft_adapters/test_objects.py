"""Adapters as full models in a validation: what is one, whose names are measured, and that a check writes nothing."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import directory_state
from doors import always_on
from inputs.tiny_models import load, tied
from modelmerger import InputError, MergeError, Settings
from modelmerger.config.resolve import resolve, resolve_validation
from modelmerger.validation.candidate import Candidate
from modelmerger.validation.running import validate

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
    assert always_on().validation.materialise_model(tied.a, tmp_path / "made", None, merged=True) is None
    assert always_on().validation.materialise_model(tied.a, None, None, merged=True) is None
    assert not (tmp_path / "made").exists()


def test_a_check_writes_nothing(adapter: Path, tied: SimpleNamespace, tmp_path: Path) -> None:
    before = directory_state(tmp_path)
    assert (
        always_on().validation.materialise_model(adapter, None, settings_of(adapter, tied, "default"), merged=True)
        == adapter
    )
    assert directory_state(tmp_path) == before


def test_the_names_of_the_config_are_those_of_sources(adapter: Path, tied: SimpleNamespace, tmp_path: Path) -> None:
    """The merged adapter is the directory itself."""
    settings = settings_of(adapter, tied, "one")
    assert (
        always_on().validation.materialise_model(adapter, tmp_path / "made", settings, merged=True) == tmp_path / "made"
    )
    assert (tmp_path / "made/model.safetensors").exists()
    with pytest.raises(MergeError, match="one"):
        always_on().validation.materialise_model(adapter, None, settings, merged=False)
    adapter.rename(tmp_path / "one")
    adapter.mkdir()
    (tmp_path / "one").rename(adapter / "one")
    (adapter / "adapter_config.json").write_text("{}")
    assert always_on().validation.materialise_model(adapter, None, settings, merged=False) == adapter


def test_an_adapter_that_cannot_be_folded_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    reason = "is an adapter of the kind None, which cannot be merged"
    with pytest.raises(InputError, match=reason):
        always_on().validation.materialise_model(folder, None, None, merged=True)
    _, settings, hooks = resolve_validation({"validation": {"sample_size": 1}})
    report = validate(Candidate(directory=folder), settings, hooks)
    assert {finding.value for finding in report.findings} == {None}
    assert "small cannot be loaded: " in report.findings[0].evidence
    assert reason in report.findings[0].evidence
