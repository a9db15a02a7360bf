"""The flags of mergekit's programs, and what is here in their place."""

from collections.abc import Mapping
from types import MappingProxyType

_NEEDLESS = "is mergekit's, and not needed here"
_MOE = (
    "is of mergekit-moe, which puts experts and gates together. No command here does. Merge what it makes as any other"
)
_EVOLVE = "is of mergekit-evolve. Here modelmerger tune finds the numbers that a config leaves open ({tune: [0, 1]})"
_EXTRACT = "is of mergekit-extract-lora. No command here extracts an adapter: merge the one that it makes as any other"
_TOKENS = "is of mergekit-tokensurgeon. Here a merge matches rows by token: options.tokenizer_source and token_sources"
FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "copy-tokenizer": "is mergekit's. Here the tokenizer goes along unless options.preserve_tokenizer is false",
        "out-shard-size": "is mergekit's, in parameters. Here options.max_shard_size, in bytes: 10GB for 5B",
        "lazy-unpickle": f"{_NEEDLESS}: weights are read slice by slice, pickles only with options.allow_pickle",
        "low-cpu-memory": f"{_NEEDLESS}: memory is constant, and less with options.low_memory_mode",
        "gpu-rich": f"{_NEEDLESS}: memory is constant, and less with options.low_memory_mode",
        "cuda": "is mergekit's. Here options.device_map: cuda; a GPU that is there is used without it",
        "device": "is mergekit's. Here options.device_map; a GPU that is there is used without it",
        "num-threads": "is mergekit's. Here all cores work; options.low_memory_mode takes one worker",
        "multi-gpu": "is mergekit's, and there is no such thing here: one GPU does the arithmetic",
        "lora-merge-cache": f"{_NEEDLESS}: adapters are folded in slice by slice, and written nowhere",
        "lora-merge-dtype": f"{_NEEDLESS}: adapters are folded in float32 at least",
        "transformers-cache": "is mergekit's. Here the Hub's cache is where HF_HUB_CACHE or HF_HOME says",
        "allow-crimes": "is mergekit's. Here models of two architectures are refused, and layers of one are stacked",
        "unsafe-truncate-embeddings": "is mergekit's. Here rows of other vocabularies are matched by token",
        "trust-remote-code": f"{_NEEDLESS}: no code of a model is ever run",
        "random-seed": "is mergekit's. Here options.seed",
        "safe-serialization": "is mergekit's. Here options.use_safetensors, true by default",
        **dict.fromkeys(("async-write", "write-threads", "read-to-gpu"), _NEEDLESS),
        **dict.fromkeys(("clone-tensors", "experimental-loader"), _NEEDLESS),
        "write-model-card": f"{_NEEDLESS}: README.md is always written",
        "quiet": "is mergekit's. Here nothing is shown of the progress where standard error is a pipe or a file",
        "verbose": "is mergekit's. Here options.verbose",
        "intermediate-dir": f"{_NEEDLESS}: of several documents, nothing is written in between",
        "lazy": f"{_NEEDLESS}: the same command goes on where a merge was stopped",
        "out-path": "is mergekit's. Here --output",
        "i-understand-this-is-not-useful-without-training": _MOE,
        **dict.fromkeys(
            ("max-fevals", "sigma0", "storage-path", "in-memory", "vllm", "num-gpus", "merge-cuda", "task-search-path"),
            _EVOLVE,
        ),
        **dict.fromkeys(("force-population-size", "save-final-model", "reshard", "wandb", "wandb-project"), _EVOLVE),
        **dict.fromkeys(("wandb-entity", "i-understand-the-depths-of-the-evils-i-am-unleashing"), _EVOLVE),
        **dict.fromkeys(("base-model", "max-rank", "distribute-scale", "embed-lora", "save-module"), _EXTRACT),
        **dict.fromkeys(("exclude-regex", "include-regex", "sv-epsilon", "skip-undecomposable"), _EXTRACT),
        **dict.fromkeys(("approximation-method", "weight-scheme", "subword-method", "cosine-similarity"), _TOKENS),
        **dict.fromkeys(("prefix-match", "byte-match", "magikarp", "new-vocab-noise", "new-vocab-scale"), _TOKENS),
    }
)
"""What is to be said of each flag, by its name without dashes and without `no-`."""


def answer_to(option: str) -> str | None:
    """A sentence about a flag of mergekit (`--no-copy-tokenizer`); None for any other option."""
    said = FLAGS.get(option.removeprefix("--").removeprefix("no-"))
    return None if said is None or not option.startswith("--") else f"{option} {said}"
