"""Adapters as full models in a validation: what is one, whose names are measured, and that a check writes nothing."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import directory_state
from inputs.tiny_models import load, tied
from modelmerger import InputError, MergeError, Settings
from modelmerger.testing import settings_of
from modelmerger_plugins.peft_adapters import materialise_model

__all__ = ["tied"]


@pytest.fixture
def adapter(tied: SimpleNamespace, tmp_path: Path) -> Path:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(load(tied.base)[0], lora).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def naming(adapter: Path, tied: SimpleNamespace, name: str) -> Settings:
    config = {"strategy": "weighted", "models": [{"path": str(adapter)}], "base_model": str(tied.base)}
    return settings_of({**config, "peft_config": {"adapter_names": [name]}})


def materialised(
    directory: Path, target: Path | None, settings: Settings | None = None, *, merged: bool
) -> Path | None:
    return materialise_model(directory=directory, target=target, settings=settings, merged=merged)


def test_a_full_model_is_not_an_adapter(tied: SimpleNamespace, tmp_path: Path) -> None:
    assert materialised(tied.a, tmp_path / "made", None, merged=True) is None
    assert materialised(tied.a, None, None, merged=True) is None
    assert not (tmp_path / "made").exists()


def test_a_check_writes_nothing(adapter: Path, tied: SimpleNamespace, tmp_path: Path) -> None:
    before = directory_state(tmp_path)
    assert materialised(adapter, None, naming(adapter, tied, "default"), merged=True) == adapter
    assert directory_state(tmp_path) == before


@pytest.mark.parametrize("base_has_one", [False, True])
def test_an_adapter_speaks_as_it_was_trained_to(
    adapter: Path, tied: SimpleNamespace, tmp_path: Path, base_has_one: bool
) -> None:
    base = shutil.copytree(tied.base, tmp_path / "base")
    (base / "tokenizer.json").write_text('{"model": {"vocab": {}}}')
    if base_has_one:
        (base / "chat_template.jinja").write_text("the base's")
    (adapter / "chat_template.jinja").write_text("its own")
    settings = naming(adapter, SimpleNamespace(base=base), "default")
    made = materialised(adapter, tmp_path / "made", settings, merged=False)
    assert made is not None
    assert (made / "chat_template.jinja").read_text() == "its own"


def test_the_names_of_the_config_are_those_of_sources(adapter: Path, tied: SimpleNamespace, tmp_path: Path) -> None:
    """The merged adapter is the directory itself."""
    settings = naming(adapter, tied, "one")
    assert materialised(adapter, tmp_path / "made", settings, merged=True) == tmp_path / "made"
    assert (tmp_path / "made/model.safetensors").exists()
    with pytest.raises(MergeError, match="one"):
        materialised(adapter, None, settings, merged=False)
    adapter.rename(tmp_path / "one")
    adapter.mkdir()
    (tmp_path / "one").rename(adapter / "one")
    (adapter / "adapter_config.json").write_text("{}")
    assert materialised(adapter, None, settings, merged=False) == adapter


def test_an_adapter_that_cannot_be_folded_says_why(
    tied: SimpleNamespace, command: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    reason = "is an adapter of the kind None, which cannot be merged"
    with pytest.raises(InputError, match=reason):
        materialised(folder, None, None, merged=True)
    for arguments in ((folder,), (tied.a, "--against", folder)):
        result = command("validate", *arguments)
        assert (result.status, result.out) == (3, "")
        assert reason in result.err
