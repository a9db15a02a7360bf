"""What transformers is let load: a config that has it run foreign code stops a model, wherever the key stands in it."""

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inputs.tiny_models import TEXTS, tied
from modelmerger import ModelReference, UnmeasurableError
from modelmerger.validation.loadable import check_loadable, loadable
from modelmerger.validation.models import Models

from tests.core.plugging import install
from tests.core.validation.assembled import always_on

__all__ = ["tied"]
KEYS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
TRAP = """
from pathlib import Path
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
Path(__file__).with_name("sprung").touch()
class Model(Qwen2ForCausalLM): ...
class Config(Qwen2Config): ...
class Words(PreTrainedTokenizerFast): ...
def generate(model, **given): ...
"""


@pytest.fixture
def copy(tied: SimpleNamespace, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tied.a, tmp_path / "copy"))


def change(file: Path, **keys: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("value", ["org/kernel", "flash_attention_2", {"": "sdpa", "text_config": "org/kernel"}])
def test_an_implementation_from_elsewhere_stops_a_model(copy: Path, key: str, nested: bool, value: Any) -> None:
    change(copy / "config.json", **({"text_config": {key: value}} if nested else {key: value}))
    name = value if isinstance(value, str) else "org/kernel"
    reason = rf"copy: wants code from a repository \({key}: {name}\), and none is run"
    with pytest.raises(UnmeasurableError, match=reason):
        loadable(copy, always_on().validation, None, copy.with_name("made"), merged=True)
    with pytest.raises(UnmeasurableError, match=reason):
        check_loadable(copy, always_on().validation, None, merged=True)


def test_code_that_a_model_brings_is_not_run_and_the_model_is_measured_without_it(
    copy: Path, tied: SimpleNamespace
) -> None:
    classes = {"AutoConfig": "trap.Config", "AutoModel": "trap.Model", "AutoModelForCausalLM": "trap.Model"}
    tasks = {"text-generation": {"impl": "trap.Model", "pt": ["AutoModelForCausalLM"]}}
    change(copy / "config.json", auto_map=classes, trust_remote_code=True, custom_pipelines=tasks)
    change(copy / "tokenizer_config.json", auto_map={"AutoTokenizer": ["trap.Words", "trap.Words"]})
    change(copy / "generation_config.json", custom_generate=str(copy), trust_remote_code=True)
    (copy / "custom_generate").mkdir()
    for place in (copy / "trap.py", copy / "custom_generate/generate.py"):
        place.write_text(TRAP)
    at = {path.name: ModelReference(str(path), path.name, "MODEL") for path in (copy, tied.a)}
    models = Models(at, 2, always_on())
    assert loadable(copy, always_on().validation, None, copy.with_name("made"), merged=True) == copy
    answers = models.open("copy").language.answers(TEXTS, 3, 0, True)
    assert type(models.open("copy").model).__module__.startswith("transformers.")
    assert list(copy.rglob("sprung")) == []
    assert answers == models.open("a").language.answers(TEXTS, 3, 0, True)


def test_what_a_plugin_makes_of_a_directory_is_looked_at_in_its_place(
    copy: Path, tmp_path: Path, distribution: Callable[..., Path]
) -> None:
    source = """
from modelmerger import hookimpl

asked = []

@hookimpl
def materialise_model(directory, merged, settings, target):
    if directory.name == "other":
        asked.append((directory.name, merged, settings, target))
        return target or directory
"""
    (module,) = install(distribution, [("plugin", "maker", source)])
    hooks = always_on().validation
    (tmp_path / "other").mkdir()
    assert loadable(tmp_path / "other", hooks, None, copy, merged=False) == copy
    check_loadable(tmp_path / "other", hooks, None, merged=True)
    assert importlib.import_module(module).asked == [("other", False, None, copy), ("other", True, None, None)]
    (copy / "config.json").unlink()
    with pytest.raises(UnmeasurableError, match=r"copy: has no config.json"):
        loadable(tmp_path / "other", hooks, None, copy, merged=False)
