"""What is no model is told by its names and first bytes, in one line that says what to do; nothing is written."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import write_model
from modelmerger import shown
from safetensors.torch import save_file

Command = Callable[..., SimpleNamespace]
LORA = {
    f"base_model.model.model.layers.0.q_proj.lora_{part}.weight": torch.ones(shape)
    for part, shape in (("A", (2, 8)), ("B", (8, 2)))
}


@pytest.fixture
def refusal(command: Command, models: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """What `check` says of a model at a path, in one line with exit status 3."""
    monkeypatch.chdir(models.folder)

    def told(path: str, **more: Any) -> str:
        given = {"strategy": "weighted", "models": [{"path": "./a"}, {"path": path}], **more}
        Path("merge.json").write_text(json.dumps(given))
        result = command("check", "merge.json")
        assert (result.status, result.out) == (3, "")
        (line,) = result.err.splitlines()
        assert len(line) <= 300
        return str(line)

    return told


def touch(*names: str, content: bytes = b"{}") -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)


ABSENT = {
    "https://huggingface.co/Qwen/Qwen2.5-0.5B": "Write Qwen/Qwen2.5-0.5B.",
    "https://huggingface.co/Qwen/Qwen2.5-0.5B/": "Write Qwen/Qwen2.5-0.5B.",
    "huggingface.co/Qwen/Qwen2.5-0.5B": "Write Qwen/Qwen2.5-0.5B.",
    "https://hf.co/Qwen/Qwen2.5-0.5B/tree/main": "Write Qwen/Qwen2.5-0.5B.",
    "https://huggingface.co/o/n/tree/v1.0": "Write o/n@v1.0.",
    "https://huggingface.co/o/n/blob/abc123/model.safetensors": "Write o/n@abc123.",
    "https://huggingface.co/o/n?library=transformers": "Write o/n.",
    "https://huggingface.co/o/n.git": "Write o/n.",
    "git@hf.co:o/n.git": "Write o/n.",
    "hf://o/n": "Write o/n.",
    "hf:o/n": "Write o/n.",
    "hf.co/o/n:Q4_K_M": "Write o/n.",
    "https://huggingface.co/o/n/tree/refs%2Fpr%2F3": "Write o/n@refs/pr/3.",
    "hf://o/n@v2": "Write o/n@v2.",
    "https://huggingface.co/datasets/o/n": "one of the Hub's datasets, and no model",
    "https://example.org/model.safetensors": "Download the model, and give its directory.",
    "s3://bucket/model": "nothing is fetched over s3.",
    "file:///srv/models/a": "Write the path alone, /srv/models/a.",
    "file:/srv/models/a": "Write the path alone, /srv/models/a.",
    "$HOME/a": "variables ($HOME) are not expanded. Write the path out.",
    "./${MODELS}/a": "variables (${MODELS}) are not expanded",
    "%USERPROFILE%/a": "variables (%USERPROFILE%) are not expanded",
    "C:\\models\\a": "under WSL as /mnt/c/models/a.",
    "D:/models/a": "under WSL as /mnt/d/models/a.",
    ".\\models\\chat": "Write ./models/chat.",
    "./hub/models--org--m": "write org/m.",
    "org/m:v1": "A revision on the Hub stands behind an @: org/m@v1.",
    "org/m/": "as org/m.",
    "./models/*": "matches nothing",
    " ./a": "Write it without what stands around it: ./a.",
    "'./a'": "Write it without what stands around it: ./a.",
    "“./a”": "Write it without what stands around it: ./a.",
    "«./a»": "Write it without what stands around it: ./a.",
    "./models/chat\u200f": "has a character in it that cannot be seen (U+200F). Write ./models/chat.",
    "\ufeff./a": "(U+FEFF). Write ./a.",
    "./my\u00a0model": "(U+00A0). Write ./my model.",
}


@pytest.mark.parametrize("path", ABSENT)
def test_a_path_that_is_none_is_told(refusal: Callable[[str], str], path: str) -> None:
    line = refusal(path)

    assert ABSENT[path] in line
    assert line.startswith(f"error: {shown(path)}: ")


FILES = {
    "m.gguf": (b"GGUF" + bytes(100), "is a GGUF file, made for llama.cpp. Give the directory of the"),
    "weights": (b"GGUF" + bytes(100), "is a GGUF file"),
    "ggml-model-q4_0.bin": (b"lmgg", "is a GGUF file"),
    "m.nemo": (b"x", "is an archive of NeMo. Convert it"),
    "m.onnx": (b"x", "is an ONNX graph. Give the directory of the model that it was exported from."),
    "openvino_model.bin": (b"x", "is made for another runtime"),
    "tf_model.h5": (b"\x89HDF\r\n\x1a\n", "from_tf=True"),
    "flax_model.msgpack": (b"x", "from_flax=True"),
    "weights.npz": (b"PK\x03\x04", "is a file of NumPy arrays"),
    "model.zip": (b"PK\x03\x04", "is an archive. Unpack it, and give the directory."),
    "model.tar.gz": (b"\x1f\x8b", "is an archive"),
    "train.parquet": (b"PAR1", "is a dataset. Give a model"),
    "train.jsonl": (b"{}", "is a dataset"),
    "a/config.json": (b"{}", "is a file that lies beside weights. Give the directory that it is in."),
    "model.safetensors.index.json": (b"{}", "is the index of a model in several files. Give the directory"),
    "other.yaml": (b"strategy: weighted", "is a config. Give a model's directory"),
    "modeling.py": (b"x", "is a file of code or text"),
    "m.safetensors": (b"GGUF" + bytes(100), "is a GGUF file, made for llama.cpp, under another name."),
    "n.safetensors": (b"PK\x03\x04" + bytes(100), "is a zip archive, as torch.save writes, and no safetensors file."),
    "m.q4_0.bin": (b"GGUF" + bytes(100), "is a GGUF file, made for llama.cpp, under another name."),
    "consolidated.00.pth": (b"PK\x03\x04" + bytes(100), "is a checkpoint in Meta's own format. Convert it with"),
    "model.bin": (
        b"\x06\0\0\0\x0c\0WhisperSpec\0" + bytes(100),
        "is a file of CTranslate2, as faster-whisper has it, under another name. Give the directory of the model",
    ),
    "words.bin": (b"\xba\x16\x4f\x2f" + bytes(100), "is no file of torch.save, whatever its name says."),
    "params_shard_0.bin": (b"\1", "is made for another runtime"),
    "rust_model.ot": (b"\1", "is made for another runtime"),
    "m.pt2": (b"PK\x03\x04" + bytes(100), "is made for another runtime"),
    "p.safetensors": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 988097824\n",
        "is a Git LFS pointer and not the file itself. Run `git lfs pull`",
    ),
    "._m.safetensors": (b"\x00\x05\x16\x07" + bytes(100), "is an AppleDouble file"),
    "h.safetensors": (b"<!DOCTYPE html><html>", "is an HTML page"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_kind_is_told(refusal: Callable[[str], str], name: str) -> None:
    content, expected = FILES[name]
    touch(name, content=content)

    line = refusal(f"./{name}")

    assert line.startswith(f"error: {name}: ")
    assert expected in line


def test_a_tar_archive_is_told_by_its_mark(refusal: Callable[[str], str]) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("config.json"))
    touch("weights", content=content.getvalue())

    assert "is an archive. Unpack it" in refusal("./weights")


FOLDERS = {
    "empty": ((), "is an empty directory"),
    "gguf": (("m.gguf", "config.json"), "has no safetensors weights, but m.gguf, which is a GGUF file"),
    "TensorFlow": (("tf_model.h5", "config.json"), "but tf_model.h5, which is a file of TensorFlow weights"),
    "Flax": (("flax_model.msgpack",), "but flax_model.msgpack, which is a file of Flax weights"),
    "MLC": (("params_shard_0.bin", "mlc-chat-config.json"), "but params_shard_0.bin, which is made for another runtime"),
    "TensorRT-LLM": (("rank0.safetensors", "rank1.safetensors", "config.json"), "give the model that they were made from"),
    "vLLM": (("model-rank-0-part-0.safetensors", "model-rank-1-part-0.safetensors"), "parts for several GPUs"),
    "a variant": (
        ("x.fp16-00001-of-00002.safetensors", "x.fp16-00002-of-00002.safetensors", "model.safetensors.index.fp16.json"),
        "from_pretrained(…, variant='fp16')",
    ),
    "old MLX": (("weights.npz", "config.json"), "but weights.npz, which is a file of NumPy arrays, as old versions"),
    "dataset": (("dataset_info.json", "data-0.arrow"), "which is a dataset"),
    "not unpacked": (("model.zip",), "but model.zip, which is an archive"),
    "DeepSpeed": (
        ("global_step10/mp_rank_00_model_states.pt", "latest", "zero_to_fp32.py"),
        "is a checkpoint of DeepSpeed, whose weights are in parts. In it, run `python zero_to_fp32.py . merged",
    ),
    "inside of DeepSpeed": (
        ("mp_rank_00_model_states.pt", "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"),
        "is a checkpoint of DeepSpeed",
    ),
    "FSDP": (
        ("pytorch_model_fsdp_0/__0_0.distcp", "pytorch_model_fsdp_0/.metadata", "config.json"),
        "Run `accelerate merge-weights model/pytorch_model_fsdp_0 merged`",
    ),
    "inside of FSDP": (("__0_0.distcp", ".metadata"), "Run `accelerate merge-weights model merged`"),
    "below FSDP": (("last/pytorch_model_fsdp_0/__0_0.distcp",), "accelerate merge-weights model/last/pytorch_model"),
    "FSDP of each rank": (("model_world_size_2_rank_0.pt", "model_world_size_2_rank_1.pt"), "verl.model_merger"),
    "Meta's own": (("consolidated.00.pth", "params.json"), "but consolidated.00.pth, which is a checkpoint in Meta's own"),
    "Lightning": (("checkpoints/epoch=1-step=9.ckpt", "hparams.yaml"), "epoch=1-step=9.ckpt, a checkpoint of Lightning."),
    "Megatron": (("iter_0000100/x", "latest_checkpointed_iteration.txt"), "is a checkpoint of Megatron"),
    "Orbax": (("_CHECKPOINT_METADATA", "default/_METADATA"), "is a checkpoint of Orbax, as JAX writes."),
    "ONNX below": (("config.json", "onnx/model.onnx"), "but onnx/model.onnx, which is an ONNX graph. Give the directory"),
    "Meta's own below": (
        ("config.json", "original/consolidated.00.pth"),
        "but original/consolidated.00.pth, which is a checkpoint in Meta's own format.",
    ),
    "a cache": (("models--org--m/refs/main", "version.txt"), "is the Hub's cache. Give a model in it by its name, as org/m."),
    "broken off": (("config.json", "model.safetensors.incomplete"), "a download into it broke off"),
    "broken off in the cache": (
        ("config.json", ".cache/huggingface/download/abc.incomplete"),
        "a download into it broke off",
    ),
    "one model below": (("chat/model.safetensors",), "but the model chat. Give model/chat."),
    "models below": (("one/model.safetensors", "two/pytorch_model.bin"), "but the models one, two. Give model/one."),
    "two levels below": (("x/y/model.safetensors",), "but the model x/y. Give model/x/y."),
    "adapter below": (
        ("arabic/adapter_config.json",),
        "but the adapter 'arabic' in a sub-folder. Set peft_config.adapter_names: [arabic].",
    ),
    "config alone": (("config.json",), "has no safetensors weights. Give the directory that holds model.safetensors"),
    "AppleDouble alone": (("._model.safetensors",), "has no safetensors weights. Give the directory"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDERS)
def test_a_directory_without_weights_is_told(refusal: Callable[[str], str], case: str) -> None:
    names, expected = FOLDERS[case]
    Path("model").mkdir()
    touch(*(f"model/{name}" for name in names))

    line = refusal("./model")

    assert line.startswith("error: model: ")
    assert expected in line


def test_the_folder_of_a_model_in_the_hub_cache_is_given_by_name_or_snapshot(refusal: Callable[[str], str]) -> None:
    write_model(Path("hub/models--org--m/snapshots/abc"), {"t": torch.ones(2)})

    line = refusal("./hub/models--org--m")

    assert "Give org/m, or hub/models--org--m/snapshots/abc." in line
    assert "Give hub/models--org--m/snapshots/abc." in refusal("./hub/models--org--m/snapshots")


def test_a_download_into_the_hub_cache_that_broke_off_is_told(refusal: Callable[[str], str]) -> None:
    touch("hub/models--org--m/snapshots/abc/config.json", "hub/models--org--m/blobs/def.incomplete")

    assert "a download into it broke off" in refusal("./hub/models--org--m/snapshots/abc")


def test_the_adapter_of_a_file_is_its_directory(refusal: Callable[[str], str]) -> None:
    Path("ad").mkdir()
    save_file(LORA, "ad/adapter_model.safetensors")

    beside = "holds the weights of an adapter (lora_A, lora_B) and of no model."
    without = f"{beside} Put the adapter_config.json beside them that they were saved with, and give the directory."
    assert without in refusal("./ad/adapter_model.safetensors")
    assert without in refusal("./ad")

    touch("ad/adapter_config.json", content=b"{}")
    assert f"{beside} Give its directory, ad." in refusal("./ad/adapter_model.safetensors")


def test_factors_under_another_name_are_no_model(refusal: Callable[[str], str]) -> None:
    """As LoRA files for image models have them; some full matrices may lie among the factors."""
    names = [f"lora_unet_{part}" for part in ("q.lora_down.weight", "q.lora_up.weight", "q.alpha")]
    save_file({"lm_head.weight": torch.ones(2), **{name: torch.ones(2) for name in names}}, "lora.safetensors")

    assert "holds the weights of an adapter" in refusal("./lora.safetensors")


@pytest.mark.parametrize(
    "factors",
    [
        ("attn1.processor.to_q_lora.down.weight", "attn1.processor.to_q_lora.up.weight"),
        ("to_q.lora.down.weight", "to_q.lora.up.weight"),
        ("processor.qkv_lora1.down.weight", "processor.qkv_lora1.up.weight"),
        ("output.adapters.x.adapter_down.0.weight", "output.adapters.x.adapter_up.weight"),
    ],
    ids=str,
)
def test_factors_as_other_libraries_call_them_are_no_model(refusal: Callable[[str], str], factors: tuple[str]) -> None:
    save_file({f"blocks.0.{name}": torch.ones(2, 2) for name in factors}, "lora.safetensors")

    assert "holds the weights of an adapter" in refusal("./lora.safetensors")


def test_a_model_of_low_ranks_is_a_model(command: Command, models: SimpleNamespace) -> None:
    """As RWKV has some by design."""
    names = [f"layers.0.attn.{name}.weight" for name in ("r_proj", "k_proj", "v_proj", "o_proj", "w_lora.lora.0")]
    paths = [write_model(models.folder / name, {n: torch.ones(2, 2) for n in names}) for name in ("one", "two")]
    config = models.folder / "merge.json"
    config.write_text(json.dumps({"strategy": "weighted", "models": [{"path": str(path)} for path in paths]}))

    assert command("check", config).status == 0


def test_files_that_the_index_lists_and_that_are_not_there_are_one_problem(
    refusal: Callable[[str], str], models: SimpleNamespace
) -> None:
    write_model(Path("sharded"), models.tensors["b"], shards=3)
    for number in (1, 3):
        Path(f"sharded/model-0000{number}-of-00003.safetensors").unlink()

    said = (
        "sharded: lacks model-00001-of-00003.safetensors and 1 more of 3 files that model.safetensors.index.json lists."
    )
    assert said in refusal("./sharded")


def test_a_file_without_tensors_is_no_model(refusal: Callable[[str], str]) -> None:
    save_file({}, "none.safetensors")

    assert "none.safetensors: holds no tensor. Is this the right file?" in refusal("./none.safetensors")


def test_a_model_with_adapters_in_it_is_a_model(command: Command, models: SimpleNamespace) -> None:
    """Some are published like that, with code that knows what to do with them."""
    layers = [f"model.layers.{i}.q_proj" for i in range(2)]
    tensors = {f"{layer}.base_layer.weight": torch.ones(2, 2) for layer in layers}
    tensors |= {
        f"{layer}.lora_{part}.{name}.weight": torch.ones(2, 2) for layer in layers for part in "AB" for name in "xy"
    }
    paths = [write_model(models.folder / name, tensors) for name in ("one", "two")]
    config = models.folder / "merge.json"
    config.write_text(json.dumps({"strategy": "weighted", "models": [{"path": str(path)} for path in paths]}))

    assert command("check", config).status == 0


@pytest.mark.parametrize("kept", [True, False], ids=["an index", "no index"])
def test_one_shard_of_many_is_no_model(refusal: Callable[[str], str], models: SimpleNamespace, kept: bool) -> None:
    write_model(Path("sharded"), models.tensors["b"], shards=3)
    if not kept:
        Path("sharded/model.safetensors.index.json").unlink()

    line = refusal("./sharded/model-00001-of-00003.safetensors")

    assert "is one of 3 files that hold a model together. Give their directory, sharded." in line


def test_a_shard_of_any_name_is_told_by_the_index(refusal: Callable[[str], str]) -> None:
    Path("parts").mkdir()
    for name in "xy":
        save_file({name: torch.ones(2)}, f"parts/{name}.safetensors")
    index = {"weight_map": {name: f"{name}.safetensors" for name in "xy"}}
    touch("parts/model.safetensors.index.json", content=json.dumps(index).encode())

    assert "is one of 2 files" in refusal("./parts/x.safetensors")


def test_the_only_shard_is_a_model(command: Command, models: SimpleNamespace) -> None:
    path = models.a / "model-00001-of-00001.safetensors"
    (models.a / "model.safetensors").rename(path)
    index = {"weight_map": dict.fromkeys(models.tensors["a"], path.name)}
    (models.a / "model.safetensors.index.json").write_text(json.dumps(index))
    config = models.folder / "merge.json"
    config.write_text(json.dumps({"strategy": "weighted", "models": [{"path": str(path)}, {"path": str(models.b)}]}))

    assert command("check", config).status == 0


def test_what_mlx_quantised_is_told(refusal: Callable[[str], str]) -> None:
    tensors = {"m.weight": torch.ones(2, dtype=torch.uint8), "m.scales": torch.ones(1), "m.biases": torch.ones(1)}
    write_model(Path("mlx"), tensors, {"quantization": {"group_size": 64, "bits": 4}})

    assert "is quantised by MLX to 4 bits" in refusal("./mlx")
