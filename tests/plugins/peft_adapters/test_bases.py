"""Which model is the base of an adapter.

What an adapter says of it is text from a stranger, and asks nobody to fetch anything.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from modelmerger import InputError, MergeConfig, ModelMerger, merge
from plugins.peft_adapters.handmade import write_adapter, write_base
from safetensors.numpy import load_file

from tests.core.plugging import install

WITNESS = """
from modelmerger import hookimpl

asked = []

@hookimpl(tryfirst=True)
def locate_model(reference):
    asked.append(reference.path)
"""
SHAPES = {"model.layers.0.up": (5, 3)}


@pytest.fixture
def _known_plugins() -> None:
    """Plugins are looked for in each test, since each installs one."""


@pytest.fixture
def asked(distribution: Callable[..., Path]) -> list[str]:
    """The paths that a third party's plugin was asked to locate."""
    (module,) = install(distribution, [("plugin", "witness", WITNESS)])
    paths: list[str] = importlib.import_module(module).asked
    return paths


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The base `org/base` in a Hub cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--base"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("abc")
    (repository / "snapshots").mkdir()
    return write_base(repository / "snapshots/abc", SHAPES)


def config(adapter: Path, output: Path, **changed: Any) -> MergeConfig:
    return MergeConfig(
        **{"strategy": "weighted", "models": [{"path": str(adapter)}], "output_path": str(output), **changed}
    )


@pytest.mark.parametrize("merge_adapters", [True, False])
@pytest.mark.parametrize("strategy", ["weighted", "task_arithmetic"])
@pytest.mark.parametrize("trained_on", ["directory", "org/base"])
def test_a_base_that_an_adapter_names_is_located_by_nobody(
    tmp_path: Path, asked: list[str], cached: Path, trained_on: str, strategy: str, merge_adapters: bool
) -> None:
    base = cached if trained_on == "org/base" else write_base(tmp_path / "base", SHAPES)
    adapter = write_adapter(tmp_path / "adapter", Path(trained_on) if base == cached else base, SHAPES, 1)
    peft = {"merge_adapters": merge_adapters}
    wanted = config(adapter.path, tmp_path / "merged", strategy=strategy, peft_config=peft)
    ModelMerger(wanted).check_compatibility()
    ModelMerger(wanted).plan()
    merge(wanted)
    assert set(asked) == {str(adapter.path)}


def test_a_base_that_is_nowhere_is_not_looked_for(tmp_path: Path, asked: list[str], cached: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", Path("org/other"), SHAPES, 1)
    with pytest.raises(InputError, match=r"neither a directory nor in the local cache"):
        merge(config(adapter.path, tmp_path / "merged"))
    assert set(asked) == {str(adapter.path)}


@pytest.mark.parametrize("key", ["base_model_path", "base_model"])
def test_a_base_that_the_user_names_is_located(tmp_path: Path, asked: list[str], key: str) -> None:
    """And not the one that the adapter names."""
    base = write_base(tmp_path / "base", SHAPES, seed=1)
    adapter = write_adapter(tmp_path / "adapter", write_base(tmp_path / "other", SHAPES, seed=2), SHAPES, 1)
    given: dict[str, Any] = {key: str(base)} if key == "base_model" else {"peft_config": {key: str(base)}}
    merge(config(adapter.path, tmp_path / "merged", **given))
    assert set(asked) == {str(adapter.path), str(base)}
    (found,) = load_file(tmp_path / "merged/model.safetensors").values()
    (original,) = load_file(base / "model.safetensors").values()
    assert np.allclose(found, original + adapter.updates["model.layers.0.up"], rtol=1e-6)


def test_a_base_in_the_cache_is_read(tmp_path: Path, cached: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", Path("org/base"), SHAPES, 1)
    merge(config(adapter.path, tmp_path / "merged"))
    (found,) = load_file(tmp_path / "merged/model.safetensors").values()
    (original,) = load_file(cached / "model.safetensors").values()
    assert np.allclose(found, original + adapter.updates["model.layers.0.up"], rtol=1e-6)
