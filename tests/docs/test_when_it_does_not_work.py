"""The page says what is printed: each of its sections is made to happen, and what it then says to do is done."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

PAGE = Path(__file__).parents[2] / "docs/how-to/when-it-does-not-work.md"
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL))
(CONFIG,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
LORA = {f"base_model.model.q.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}


def file(path: str, content: bytes = b"{}") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)
    return path


def folder(*files: str) -> str:
    for name in files:
        file(f"broken/{name}")
    Path("broken").mkdir(exist_ok=True)
    return "./broken"


def shard() -> str:
    shutil.copytree("models/chat", "sharded")
    Path("sharded/model.safetensors").rename("sharded/model-00001-of-00002.safetensors")
    return "./sharded/model-00001-of-00002.safetensors"


def half_a_download() -> str:
    path = rewritten(dict)
    first, second = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
    Path(path, "model.safetensors").rename(Path(path, first))
    file(f"{path}/model.safetensors.index.json", json.dumps({"weight_map": {"a": first, "b": second}}).encode())
    return path


def over_its_adapter() -> str:
    path = rewritten(dict)
    shutil.copy(Path(adapter(), "adapter_config.json"), path)
    return path


def adapter_file() -> str:
    path = file("ad/adapter_config.json").replace("config.json", "model.safetensors")
    save_file(LORA, path)
    return path


def untrained() -> str:
    shutil.copytree("models/base", "tuned")
    return "./tuned"


def cached() -> str:
    shutil.copytree("models/chat", "hub/models--org--m/snapshots/abc")
    return "./hub/models--org--m"


def as_pickle() -> str:
    torch.save(load_file("models/chat/model.safetensors"), file("broken/pytorch_model.bin"))
    return "./broken"


Tensors = dict[str, torch.Tensor]


def rewritten(change: Callable[[Tensors], Tensors], name: str = "broken") -> str:
    """A copy of the chat model with other tensors."""
    shutil.copytree("models/chat", name)
    tensors = change(load_file(f"{name}/model.safetensors"))
    save_file({key: value.contiguous() for key, value in tensors.items()}, f"{name}/model.safetensors")
    return f"./{name}"


def edited(path: str, change: Callable[[Any], Any]) -> None:
    Path(path).write_text(json.dumps(change(json.loads(Path(path).read_text()))))


def enlarged(tensor: torch.Tensor) -> torch.Tensor:
    return torch.cat([tensor, tensor[:2]])


def prefixed(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {part + name: tensor.clone() for name, tensor in tensors.items()}


def of_peft(tensors: Tensors) -> Tensors:
    adapted = {name.replace(".weight", ".base_layer.weight"): tensor for name, tensor in tensors.items()}
    return prefixed("base_model.model.")(adapted)


def other_words() -> str:
    path = rewritten(dict)

    def swapped(tokenizer: Any) -> Any:
        words = tokenizer["model"]["vocab"]
        one, other = list(words)[-2:]
        words[one], words[other] = words[other], words[one]
        return tokenizer

    edited(f"{path}/tokenizer.json", swapped)
    return path


def new_word() -> str:
    path = rewritten(dict)

    def renamed(tokenizer: Any) -> Any:
        words = tokenizer["model"]["vocab"]
        words["a new word"] = words.pop(list(words)[-1])
        return tokenizer

    edited(f"{path}/tokenizer.json", renamed)
    return path


def without_tokenizer(change: Callable[[Tensors], Tensors] = dict) -> str:
    path = rewritten(change)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        Path(path, name).unlink()
    return path


def four_bits() -> str:
    def packed(tensors: Tensors) -> Tensors:
        small = {
            name: torch.zeros(tensor.numel() // 2, 1, dtype=torch.uint8) if "_proj.weight" in name else tensor
            for name, tensor in tensors.items()
        }
        return {**small, "model.layers.0.self_attn.q_proj.weight.absmax": torch.ones(4)}

    path = rewritten(packed)
    method = {"load_in_4bit": True, "quant_method": "bitsandbytes"}
    edited(f"{path}/config.json", lambda config: {**config, "quantization_config": method})
    return path


def adapter(name: str = "adapter", base: str = "", **whole: torch.Tensor) -> str:
    """One of the models' first layer, and matrices that it brings whole."""
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{module}.lora_A.weight": torch.ones(2, 192), f"{module}.lora_B.weight": torch.ones(192, 2)}
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"]}
    config = settings | ({"base_model_name_or_path": base} if base else {})
    path = Path(file(f"{name}/adapter_config.json", json.dumps(config).encode())).parent
    save_file({**factors, **whole}, path / "adapter_model.safetensors")
    return f"./{path}"


def larger_adapter() -> str:
    name = "model.embed_tokens.weight"
    return adapter(**{f"base_model.model.{name}": enlarged(load_file("models/chat/model.safetensors")[name])})


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 1\n"
COMMA = CONFIG.replace("chat, weight: 0.5", "chat, weight: 0,5")
Changes = dict[str, str] | str
"""What is set in the config, or a config of its own."""
BROKEN: dict[str, list[Callable[[], Changes]]] = {
    "A path leads nowhere": [
        lambda: {"models[0].path": "./absent/absent"},
        lambda: {"models[0].path": "./models/chta"},
        lambda: {"models[0].path": "https://huggingface.co/Qwen/Qwen2.5-0.5B"},
        lambda: {"models[0].path": "$HOME/a"},
        lambda: {"models[0].path": r"C:\models\a"},
        lambda: {"models[0].path": "./models/chat\u200f"},
    ],
    "The model is one folder further down": [
        lambda: {"models[0].path": "./models"},
        lambda: {"models[0].path": cached()},
    ],
    "The adapter is in a folder of its name": [lambda: {"models[0].path": folder("arabic/adapter_config.json")}],
    "A whole model lies beside the config of its adapter": [lambda: {"models[0].path": over_its_adapter()}],
    "The file is a part of a model": [
        lambda: {"models[0].path": shard()},
        lambda: {"models[0].path": adapter_file()},
    ],
    "Git LFS left a pointer": [lambda: {"models[0].path": file("broken/model.safetensors", POINTER)}],
    "An HTML page or a file of macOS lies in the place of a file": [
        lambda: {"models[0].path": file("broken/model.safetensors", b"<!DOCTYPE html><html>")},
        lambda: {"models[0].path": file("broken/._model.safetensors", b"\x00\x05\x16\x07")},
    ],
    "A trainer left the weights in parts": [
        lambda: {"models[0].path": folder("global_step5/mp_rank_00_model_states.pt", "zero_to_fp32.py")},
        lambda: {"models[0].path": folder("pytorch_model_fsdp_0/__0_0.distcp")},
        lambda: {"models[0].path": without_tokenizer(lambda _: {"model.layers.0._flat_param": torch.ones(2000)})},
    ],
    "The weights are in another format": [
        lambda: {"models[0].path": file("m.gguf", b"GGUF")},
        lambda: {"models[0].path": folder("tf_model.h5", "config.json")},
        lambda: {"models[0].path": as_pickle()},
        lambda: {"models[0].path": file("broken/model.bin", b"\6\0\0\0\x0c\0WhisperSpec\0")},
    ],
    "A directory is empty, or a download broke off": [
        lambda: {"models[0].path": folder()},
        lambda: {"models[0].path": folder("model.safetensors.incomplete")},
        lambda: {"models[0].path": half_a_download()},
    ],
    "A number is written with a comma or with Arabic digits": [
        lambda: {"models[0].weight": "٠٫٥"},
        lambda: COMMA,
    ],
    "A word is mergekit's": [
        lambda: {"strategy": "linear"},
        lambda: {"strategy": "slerp", "options.t": "0.5"},
    ],
    "A weight changes nothing": [lambda: {"models": "[{path: ./models/chat, weight: 0.5}]"}],
    "A fine-tune is its base": [lambda: {"models[0].path": untrained(), "base_model": "./models/base"}],
    "A vocabulary was resized": [
        lambda: {
            "models[0].path": without_tokenizer(lambda t: {n: enlarged(v) if "embed" in n else v for n, v in t.items()})
        },
        lambda: {"models[0].path": larger_adapter(), "base_model": "./models/base"},
    ],
    "A wrapper's prefix is in the names of tensors": [
        lambda: {"models[0].path": rewritten(prefixed("_orig_mod."))},
        lambda: {"models[0].path": rewritten(lambda t: t | prefixed("_orig_mod.")(t))},
        lambda: {"models[0].path": rewritten(of_peft)},
    ],
    "The tokenizer is missing, or another's": [
        lambda: {"models[0].path": without_tokenizer()},
        lambda: {"models[0].path": other_words()},
        lambda: {"models[0].path": new_word()},
    ],
    "An adapter was trained in 4 bits (QLoRA)": [
        lambda: {"models[0].path": adapter(), "base_model": four_bits()},
        lambda: {"models[0].path": adapter(base="unsloth/Qwen2.5-0.5B-bnb-4bit")},
        lambda: {"models[0].path": four_bits()},
    ],
    "The output is there already": [lambda: {"output_path": "./models/merged"}],
}


def test_every_section_is_made_to_happen() -> None:
    assert list(SECTIONS) == list(BROKEN)


def sentences(section: str) -> list[str]:
    """What the section says is printed, as patterns."""
    (text,) = re.findall(r"^```text\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [".*?".join(map(re.escape, line.split("…"))) for line in text.splitlines()]


@pytest.mark.parametrize(("title", "number"), [(title, i) for title, ways in BROKEN.items() for i in range(len(ways))])
def test_what_a_section_quotes_is_printed(
    place: Path, command: Callable[..., SimpleNamespace], title: str, number: int
) -> None:
    changes = BROKEN[title][number]()
    Path("merge.yaml").write_text(changes if isinstance(changes, str) else CONFIG)
    settings = [] if isinstance(changes, str) else [part for k, v in changes.items() for part in ("--set", f"{k}={v}")]
    if title == "The output is there already":
        assert command("merge", "merge.yaml").status == 0
        said = command("merge", "merge.yaml")
    else:
        said = command("check", "merge.yaml", *settings)

    quoted = sentences(SECTIONS[title])
    lines = [line.removeprefix("error: ") for line in (said.err + said.out).splitlines()]
    found = [i for i, pattern in enumerate(quoted) if any(re.fullmatch(pattern, line.strip()) for line in lines)]
    assert len(quoted) == len(BROKEN[title])
    assert found == [number], (lines, quoted)
    assert (said.status == 0) == quoted[number].startswith(("note", "warning"))


@pytest.mark.parametrize("title", SECTIONS)
def test_what_a_section_says_to_do_is_right(place: Path, command: Callable[..., SimpleNamespace], title: str) -> None:
    Path("merge.yaml").write_text(CONFIG)
    adapter("models/adapter")
    for kind, block in re.findall(r"^```(console|python)\n(.*?)^```", SECTIONS[title], re.MULTILINE | re.DOTALL):
        if kind == "python":
            exec(block, {})
        for line in block.splitlines() if kind == "console" else ():
            if line.startswith("modelmerger "):
                assert command(*line.split()[1:]).status == 0, line
