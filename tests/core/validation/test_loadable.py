"""What transformers is let load: a config that has it run foreign code stops a model, wherever the key stands in it."""

import importlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inputs.tiny_models import TEXTS, tied
from modelmerger import InputError, ModelReference, UnmeasurableError
from modelmerger.validation.loadable import check_loadable, loadable
from modelmerger.validation.models import Models
from safetensors import safe_open

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
        loadable(copy, always_on(), None, copy.with_name("made"), merged=True)
    with pytest.raises(UnmeasurableError, match=reason):
        check_loadable(copy, always_on(), None, merged=True)


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
    assert loadable(copy, always_on(), None, copy.with_name("made"), merged=True) == copy
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
    hooks = always_on()
    (tmp_path / "other").mkdir()
    assert loadable(tmp_path / "other", hooks, None, copy, merged=False) == copy
    check_loadable(tmp_path / "other", hooks, None, merged=True)
    assert importlib.import_module(module).asked == [("other", False, None, copy), ("other", True, None, None)]
    (copy / "config.json").unlink()
    with pytest.raises(UnmeasurableError, match=r"copy: has no config.json"):
        loadable(tmp_path / "other", hooks, None, copy, merged=False)


def _index(copy: Path, shard: str) -> None:
    (copy / "model.safetensors").rename(copy.with_name("elsewhere.safetensors"))
    with safe_open(copy.with_name("elsewhere.safetensors"), "np") as file:
        names = list(file.keys())
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, shard)}))
    (copy / "model-00001-of-00001.safetensors").write_bytes(b"")


def _truncate(copy: Path) -> None:
    os.truncate(copy / "model.safetensors", 5000)


def _link_out(copy: Path) -> None:
    shutil.move(copy / "tokenizer.json", copy.with_name("tokenizer.json"))
    (copy / "tokenizer.json").symlink_to(copy.with_name("tokenizer.json"))


def _fifo(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    os.mkfifo(copy / "chat_template.jinja")


def _device(copy: Path) -> None:
    (copy / "vocab.json").symlink_to("/dev/zero")


def _template(copy: Path) -> None:
    (copy / "additional_chat_templates").mkdir()
    (copy / "additional_chat_templates/tool.jinja").symlink_to("/etc/hostname")


def _large(copy: Path) -> None:
    with (copy / "tokenizer.json").open("r+b") as file:
        file.truncate(300 << 20)


HOSTILE = [
    (lambda copy: _index(copy, "../elsewhere.safetensors"), "sends this tensor to '../elsewhere.safetensors'"),
    (lambda copy: _index(copy, "model-00001-of-00001.safetensors"), "model-00001-of-00001.safetensors"),
    (_truncate, "model.safetensors"),
    (_link_out, "tokenizer.json: is a link that leads out"),
    (_fifo, "chat_template.jinja: is not a regular file"),
    (_device, "vocab.json: is a link that leads out"),
    (_template, "tool.jinja: is a link that leads out"),
    (_large, "tokenizer.json: is 314,572,800 bytes long"),
]


@pytest.mark.parametrize(("spoil", "reason"), HOSTILE)
def test_what_a_merge_refuses_is_refused_before_transformers_sees_it(
    copy: Path, spoil: Callable[[Path], None], reason: str, command: Callable[..., SimpleNamespace]
) -> None:
    """B19"""
    spoil(copy)
    with pytest.raises(InputError, match=re.escape(reason)):
        check_loadable(copy, always_on(), None, merged=True)
    with pytest.raises(InputError, match=re.escape(reason)):
        loadable(copy, always_on(), None, copy.with_name("made"), merged=False)
    result = command("validate", copy)
    assert (result.status, result.out) == (3, "")
    assert reason in result.err


def test_what_is_compared_with_is_looked_at_too(
    copy: Path, tied: SimpleNamespace, command: Callable[..., SimpleNamespace]
) -> None:
    """B19"""
    _fifo(copy)
    result = command("validate", tied.a, "--against", copy)
    assert (result.status, result.out) == (3, "")
    assert "chat_template.jinja: is not a regular file" in result.err
