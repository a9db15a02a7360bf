"""Lays out the merged weights as `pytorch_model.bin`, a zip archive of `torch.save`, for `use_safetensors: false`."""

from collections.abc import Sequence

from attrs import frozen
from modelmerger import (
    DTYPES,
    ConfigError,
    Layout,
    OutputTensor,
    Problem,
    hookimpl,
    shard_names,
    split_into_shards,
    weight_index,
)

SUFFIX = ".bin"
STEMS = {"model": "pytorch_model"}
"""The names that transformers gives such files."""


@frozen(kw_only=True)
class Options:
    """Options about the format of the weights."""

    use_safetensors: bool = True
    """False: write pytorch_model.bin, as torch.save does, instead."""


@hookimpl
def save_model(tensors: Sequence[OutputTensor], max_shard_size: int, stem: str, options: Options) -> Layout | None:
    """The same shards as safetensors have; None unless asked for. Raises `ConfigError` for dtypes that torch lacks."""
    if options.use_safetensors:
        return None
    from modelmerger_plugins.torch_bin.archive import laid_out

    if problems := [_unknown(tensor) for tensor in tensors if DTYPES[tensor.dtype].torch_name is None]:
        raise ConfigError(*problems)
    parts = split_into_shards(tensors, max_shard_size)
    stem = STEMS.get(stem, stem)
    files = [laid_out(name, part) for name, part in zip(shard_names(stem, SUFFIX, len(parts)), parts, strict=True)]
    return Layout("torch.save", files, weight_index(f"{stem}{SUFFIX}.index.json", files))


def _unknown(tensor: OutputTensor) -> Problem:
    message = f"is {tensor.dtype}, which torch cannot save. Leave use_safetensors: false out"
    return Problem(message, "options.use_safetensors", tensor.name)
