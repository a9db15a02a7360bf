"""What a file is that is not read here: told by its name, or by its first bytes."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from attrs import frozen

FIRST = 265
"""Bytes at the beginning of a file in which the marks lie."""


@frozen
class Kind:
    """A kind of file."""

    what: str
    """What it is, to be said after "is"."""
    names: tuple[str, ...]
    """Patterns of names, in small letters."""
    remedy: str
    """What to do: a sentence."""
    marks: tuple[bytes, ...] = ()
    """How such files begin."""
    fills: bool = True
    """Whether a directory that has one, and no weights that are read here, is told by it."""


_LOADED_BY_4 = (
    "Load it with transformers 4 (from_pretrained with {}=True), call save_pretrained, and give what that wrote."
)
_EXPORTED = "Give the directory of the model that it was exported from."
ARCHIVE = Kind(
    "an archive",
    ("*.zip", "*.tar", "*.tgz", "*.gz", "*.bz2", "*.xz", "*.zst", "*.7z", "*.rar"),
    "Unpack it, and give the directory.",
    (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"Rar!"),
)
CTRANSLATE2 = Kind(
    "a file of CTranslate2, as faster-whisper has it", (), "Give the directory of the model that it was converted from."
)
KINDS = (
    Kind(
        "a GGUF file, made for llama.cpp",
        ("*.gguf", "*.ggml", "ggml-*.bin", "*.llamafile"),
        "Give the directory of the safetensors model that it was made from.",
        (b"GGUF", b"lmgg", b"tjgg", b"fmgg"),
    ),
    Kind(
        "a checkpoint in Meta's own format",
        ("consolidated.*.pth",),
        "Convert it with transformers' convert_llama_weights_to_hf.py, and give what that wrote.",
    ),
    Kind("an ONNX graph", ("*.onnx", "*.onnx_data", "*.ort"), _EXPORTED),
    Kind(
        "made for another runtime",
        (
            *("openvino_*.bin", "openvino_*.xml", "*.tflite", "*.mlmodel", "*.mlpackage", "*.engine", "*.pte"),
            *("*.pt2", "*.rknn", "*.dlc", "*.mnn", "*.trt", "*.hef", "params_shard_*.bin", "*.ot"),
        ),
        _EXPORTED,
    ),
    Kind("a file of Flax weights", ("*.msgpack",), _LOADED_BY_4.format("from_flax")),
    Kind(
        "a file of TensorFlow weights",
        ("*.h5", "*.keras", "*.ckpt.index", "*.ckpt.meta", "*.ckpt.data-*", "saved_model.pb"),
        _LOADED_BY_4.format("from_tf"),
        (b"\x89HDF\r\n\x1a\n",),
    ),
    Kind(
        "a file of PaddlePaddle weights",
        ("*.pdparams", "*.pdmodel"),
        "Convert it to a directory with config.json and model.safetensors, and give that.",
    ),
    Kind(
        "an archive of NeMo",
        ("*.nemo",),
        "Convert it with NeMo's scripts/checkpoint_converters (convert_…_nemo_to_hf.py), and give what they wrote.",
    ),
    Kind(
        "a file of NumPy arrays, as old versions of MLX write them",
        ("*.npz", "*.npy"),
        "Give the directory of the model that was converted to MLX.",
        (b"\x93NUMPY",),
    ),
    ARCHIVE,
    Kind(
        "a dataset",
        ("*.parquet", "*.arrow", "*.jsonl", "*.csv", "*.tsv", "dataset_info.json", "dataset_dict.json"),
        "Give a model; texts to measure the merged model on go into validation.dataset.",
        (b"PAR1", b"ARROW1"),
    ),
    Kind("the index of a model in several files", ("*.index.json",), "Give the directory that it is in.", fills=False),
    Kind(
        "a file that lies beside weights",
        ("*.json", "tokenizer.model", "spiece.model", "*.tiktoken", "readme*", "*.jinja", "vocab.txt", "merges.txt"),
        "Give the directory that it is in.",
        fills=False,
    ),
    Kind(
        "a config",
        ("*.yaml", "*.yml", "*.toml"),
        "Give a model's directory; a merge that is to be a model goes under merges, or under merge in place of path.",
        fills=False,
    ),
    Kind(
        "a file of code or text",
        ("*.py", "*.ipynb", "*.sh", "*.txt", "*.md", "*.log"),
        "Give a model's directory.",
        fills=False,
    ),
)
_TAR, _TAR_AT, _ZIP = b"ustar", 257, b"PK\x03\x04"
_PICKLE = b"\x80"
"""How every pickle of the protocol begins that torch.save takes."""
_HEADER = (b'{"', b"{}")
"""How the header of a safetensors file begins, behind eight bytes of its length."""
_CTRANSLATE2 = re.compile(rb"[\x01-\x1f]\0{3}.\0\w+Spec\0", re.DOTALL)
"""Version, length and name of a model: `WhisperSpec`."""


def by_name(name: str) -> Kind | None:
    """The kind of a file of this name; None where the name says nothing."""
    small = name.lower()
    return next((kind for kind in KINDS if any(fnmatchcase(small, pattern) for pattern in kind.names)), None)


def by_first_bytes(first_bytes: bytes) -> Kind | None:
    """The kind of a file that begins like this. first_bytes: the first `FIRST`, or all of a shorter file."""
    if first_bytes[_TAR_AT:].startswith(_TAR):
        return ARCHIVE
    if _CTRANSLATE2.match(first_bytes):
        return CTRANSLATE2
    return next((kind for kind in KINDS if kind.marks and first_bytes.startswith(kind.marks)), None)


def that_fills(names: Iterable[str]) -> tuple[str, Kind] | None:
    """The file by which a directory of these names is told, and its kind: of two, the kind that comes first above."""
    found = [(KINDS.index(kind), name) for name in names if (kind := by_name(name)) is not None and kind.fills]
    return (min(found)[1], KINDS[min(found)[0]]) if found else None


def under_another_name(first_bytes: bytes, zipped: bool) -> str | None:
    """What is said of a file that begins like this and has the name of weights; None where its beginning says nothing.

    zipped: whether weights of that name are zip archives themselves.
    """
    if first_bytes.startswith(_ZIP):
        if zipped:
            return None
        return "is a zip archive, as torch.save writes, and no safetensors file. Load it, and call save_pretrained."
    kind = by_first_bytes(first_bytes)
    if kind is not None:
        return f"is {kind.what}, under another name. {kind.remedy}"
    if zipped and first_bytes[8:].startswith(_HEADER):
        return "is a safetensors file, by what it holds. Give it a name that ends in .safetensors."
    if zipped and first_bytes and not first_bytes.startswith(_PICKLE):
        return "is no file of torch.save, whatever its name says. Give the directory of the model it was made from."
    return None
