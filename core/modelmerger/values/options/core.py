"""The options of every merge: the keys of `options` that belong to no plugin."""

import os
import re
from collections.abc import Mapping
from typing import Any, Literal

from attrs import Attribute, field, frozen, validators

from modelmerger.values.dtypes import DTYPES, dtype_from_config
from modelmerger.values.options.checks import Check, must_be_between, must_be_one_of, must_not_be_empty, size_in_bytes

DTYPE_NAMES = ("float64", "float32", "float16", "bfloat16")
MissingTensors = Literal["error", "donor", "union"]
Io = Literal["auto", "buffered", "direct"]
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _shard_size(_: Any, __: "Attribute[Any]", value: int | str) -> None:
    size_in_bytes(value)


def _memory_size(_: Any, __: "Attribute[Any]", value: int | str) -> None:
    str(value).strip() == "0" or size_in_bytes(value)


_STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
_DEVICE = r"cpu|cuda(:[0-9]{1,3})?"


def _device_map_problem(value: str | Mapping[str, int | str]) -> str | None:
    if isinstance(value, str):
        allowed = "auto, cpu, cuda, cuda:N, balanced, balanced_low_0, sequential"
        sound = value in _STRATEGIES or re.fullmatch(_DEVICE, value) is not None
    else:
        allowed = "cpu, disk, cuda, cuda:N or a number"
        sound = len(value) > 0 and all(re.fullmatch(f"{_DEVICE}|disk|[0-9]+", str(device)) for device in value.values())
    return None if sound else f"must be one of {allowed}, got {value!r}"


_DEVICE_MAP = Check({"pattern": f"^({'|'.join(_STRATEGIES)}|{_DEVICE})$"}, _device_map_problem)


def _not_both(instance: "CoreOptions", _: "Attribute[Any]", value: bool | None) -> None:
    if value and instance.sequential_loading:
        raise ValueError("contradicts 'sequential_loading': both are true. Give one of them")


@frozen(kw_only=True)
class CoreOptions:
    """Options of every merge, whatever the strategy."""

    torch_dtype: str = field(default="auto", validator=must_be_one_of("auto", *DTYPE_NAMES))
    """Dtype written for floating tensors; auto: the donor's, tensor by tensor."""
    device_map: str | dict[str, int | str] = field(default="auto", validator=_DEVICE_MAP)
    """Where slices are merged and where the returned model is placed; auto: a GPU where torch sees one. Out of its
    memory, the merge goes on on the CPU."""
    low_memory_mode: bool = False
    """One worker, the smallest slices; the weights of the returned model stay on the disk."""
    sequential_loading: bool = False
    """One worker, one input file open at a time; turns parallel_loading off."""
    io: Io = "auto"
    """Whether weights go through the page cache (buffered), past it (direct), or as costs least; not part of the
    plan."""
    memory: int | str = field(default="512MiB", validator=_memory_size)
    """How much of what a strategy measures is kept, so that the disk is read once; not part of the plan."""
    parallel_loading: bool | None = field(default=None, validator=_not_both)
    """The inputs of a slice are read ahead, all at once. On unless sequential_loading is."""
    cache_models: bool = False
    """A `ModelMerger` keeps the models that it opened for its next merge, as long as nothing of them changes on
    disk."""
    max_shard_size: int | str = field(default="5GB", validator=_shard_size)
    """Size of a file of weights, "5GB", "500MB", "1GiB" or a number of bytes."""
    offload_folder: str | None = field(default=None, validator=validators.optional(must_not_be_empty))
    """Scratch space of merges that have no output_path, and of what a returned model offloads; made if need be."""
    torch_compile: bool = False
    """The strategy's arithmetic goes through torch.compile; without a compiler, one warning, and it does not."""
    gradient_checkpointing: bool = False
    """On in the returned model, whose use_cache is off then."""
    verbose: bool = False
    """The modelmerger logger says what happens."""
    log_level: str | None = field(default=None, validator=validators.optional(must_be_one_of(*LOG_LEVELS)))
    """Level of the modelmerger logger; wins over verbose."""
    seed: int = field(default=0, validator=must_be_between(0, 2**63, open_above=True))
    """The only source of randomness; recorded in the manifest."""
    allow_nonfinite: bool = False
    """Let NaN and infinity through, which otherwise end the merge."""
    missing_tensors: MissingTensors = "error"
    """What becomes of tensors that only some models have; error: the merge is refused; donor: those that the donor
    has are taken from it, the others left out; union: the others are taken from the first model that has them."""
    unmatched_patterns: Literal["error", "warning"] = "error"
    """What a pattern on tensor names is that matches no tensor."""
    merge_embeddings: bool = True
    """False: the embedding is the donor's, bit for bit, and with it an LM head that is tied to it."""
    merge_lm_head: bool | None = None
    """False: the LM head is the donor's, bit for bit. True unless it is tied to the embedding."""
    untie: bool = False
    """An LM head that drifted apart from the embedding which it is tied to is written beside it, and config.json says
    that they are two."""
    executor: str | None = field(default=None, validator=validators.optional(must_not_be_empty))
    """The installed executor that does the work, in threads, processes or on other machines; not part of the plan:
    what one began, another goes on with."""
    check_loading: bool | Literal["auto"] = "auto"
    """Whether it is found out, before anything is published, that the merged model will load; auto: in `check`, where
    more than 4 GB are written, and where the run loads the model anyway."""
    overwrite: bool = False
    """Replace an output directory that an earlier merge wrote, in one step; refused where something else is in it."""
    keep_extra: bool = False
    """With overwrite, what no merge wrote of the old output is in the new one too, and is not refused."""
    record_paths: bool = False
    """Model card, manifest and reports hold local paths as they were given; else their last parts alone."""

    @property
    def level(self) -> str:
        """The level of the `modelmerger` logger; `log_level` wins over `verbose`."""
        return self.log_level or ("INFO" if self.verbose else "WARNING")

    @property
    def reads_ahead(self) -> bool:
        """Whether the inputs of a slice are read concurrently."""
        return not self.sequential_loading if self.parallel_loading is None else self.parallel_loading

    @property
    def workers(self) -> int:
        """How many units of work are done at a time."""
        return 1 if self.low_memory_mode or self.sequential_loading else len(os.sched_getaffinity(0))

    @property
    def kept_bytes(self) -> int:
        """`memory` in bytes."""
        return 0 if self.low_memory_mode or str(self.memory).strip() == "0" else size_in_bytes(self.memory)

    def written(self, dtype: str) -> str:
        """The dtype that a tensor of this dtype is written in, both as in safetensors. Only floats change."""
        if self.torch_dtype == "auto" or DTYPES[dtype].family != "float":
            return dtype
        return dtype_from_config(self.torch_dtype)


OF_A_MERGE = (
    *("torch_dtype", "seed", "allow_nonfinite", "missing_tensors", "unmatched_patterns"),
    *("merge_embeddings", "merge_lm_head", "untie"),
)
"""The options that a merge within a merge has of its own; the others are of the whole run."""
INHERITED = ("seed", "allow_nonfinite", "unmatched_patterns")
"""Those of them that are the outer merge's unless they are given."""
