"""The config, checked and frozen, as every later stage reads it."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import Attribute, field, frozen, validators

from modelmerger.values.checkpoint import TensorInfo
from modelmerger.values.dtypes import DTYPES, dtype_from_config
from modelmerger.values.errors import Problem
from modelmerger.values.option_checks import Check, must_be_between, must_be_finite, must_be_one_of, must_not_be_empty
from modelmerger.values.weights import Weight, sound_weight

DTYPE_NAMES = ("float64", "float32", "float16", "bfloat16")
MissingTensors = Literal["error", "donor", "union"]
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def shard_bytes(size: int | str) -> int:
    """`"5GB"` → 5,000,000,000; `"1GiB"` → 1,073,741,824; a number is bytes."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]?I?B)?", str(size).strip(), re.IGNORECASE)
    count = float(match[1]) * _UNITS[(match[2] or "").upper()] if match and (match[2] or "").upper() in _UNITS else 0
    if count < 1:
        raise ValueError(f"must be a size such as '5GB', '500MB' or a number of bytes, got {size!r}")
    return int(count)


def _shard_size(_: Any, __: "Attribute[Any]", value: int | str) -> None:
    shard_bytes(value)


_STRATEGIES = "auto|balanced|balanced_low_0|sequential"
_DEVICE = r"cpu|cuda(:[0-9]{1,3})?"


def _device_map_problem(value: str | Mapping[str, int | str]) -> str | None:
    if isinstance(value, str):
        allowed = "auto, cpu, cuda, cuda:N, balanced, balanced_low_0, sequential"
        sound = re.fullmatch(f"{_STRATEGIES}|{_DEVICE}", value) is not None
    else:
        allowed = "cpu, disk, cuda, cuda:N or a number"
        sound = len(value) > 0 and all(re.fullmatch(f"{_DEVICE}|disk|[0-9]+", str(device)) for device in value.values())
    return None if sound else f"must be one of {allowed}, got {value!r}"


_DEVICE_MAP = Check({"pattern": f"^({_STRATEGIES}|{_DEVICE})$"}, _device_map_problem)
_AT_LEAST_ONE = Check({"minItems": 1}, lambda names: None if names else "must hold at least one name")


def _finite_values(_: Any, __: "Attribute[Any]", values: Mapping[str, float]) -> None:
    for value in values.values():
        must_be_finite(_, __, value)


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

    def written(self, dtype: str) -> str:
        """The dtype that a tensor of this dtype is written in, both as in safetensors. Only floats change."""
        if self.torch_dtype == "auto" or DTYPES[dtype].family != "float":
            return dtype
        return dtype_from_config(self.torch_dtype)


OF_A_MERGE = ("torch_dtype", "seed", "allow_nonfinite", "missing_tensors", "merge_embeddings", "merge_lm_head", "untie")
"""The options that a merge within a merge has of its own; the others are of the whole run."""
INHERITED = ("seed", "allow_nonfinite")
"""Those of them that are the outer merge's unless they are given."""


@frozen(kw_only=True)
class ModelSettings:
    """One entry of `models`."""

    path: str = field(validator=must_not_be_empty)
    """A model's directory, a .safetensors file, a trainer's output directory, or a Hub id; in Python also a module,
    or a mapping of tensors."""
    weight: Weight = field(default=1.0, validator=sound_weight)
    """How much of the model goes into the merge: a number, numbers from the first layer to the last, or either by
    patterns on tensor names, with 'default' for the rest."""
    name: str = ""
    """What messages and the model card call it; empty: the last part of the path."""


@frozen(kw_only=True)
class ValidationSettings:
    """`validation`. Given without `run_tests`, it is on."""

    run_tests: bool = True
    """Whether the merged model is validated."""
    test_prompts: tuple[str, ...] | dict[str, tuple[str, ...]] = ()
    """Prompts, or a mapping from labels (dialects, languages) to prompts."""
    chat_template: bool | Literal["auto"] = "auto"
    """Whether prompts go through the tokenizer's chat template; auto: where it has one."""
    metrics: tuple[str, ...] | None = field(default=None, validator=validators.optional(_AT_LEAST_ONE))
    """Names of validators. Without it, those that run by default."""
    sample_size: int | None = field(default=None, validator=validators.optional(must_be_between(1, 2**31)))
    """How many texts are scored, and how many prompts are answered; without it, all."""
    test_batch_size: int = field(default=8, validator=must_be_between(1, 2**31))
    """How many texts or prompts at a time."""
    quick_test: bool = False
    """One prompt per label, at most 50 texts, answers of at most 16 tokens."""
    dataset: str | None = field(default=None, validator=validators.optional(must_not_be_empty))
    """A file of texts, one a line, or JSONL with a 'text' and perhaps a 'dialect', its label, in each line."""
    max_new_tokens: int = field(default=64, validator=must_be_between(1, 2**20))
    """Length of generated answers at most."""
    seed: int = field(default=0, validator=must_be_between(0, 2**63, open_above=True))
    """Makes generation reproducible."""
    compare_with_sources: bool = False
    """The same metrics for every source model."""
    thresholds: dict[str, float] | None = field(default=None, validator=validators.optional(_finite_values))
    """The worst acceptable value of each metric."""

    @property
    def new_tokens(self) -> int:
        """Tokens of an answer at most."""
        return min(16, self.max_new_tokens) if self.quick_test else self.max_new_tokens

    @property
    def most_texts(self) -> int | None:
        """How many texts are scored at most; None: all."""
        return min(50, self.sample_size or 50) if self.quick_test else self.sample_size


BASE = "base_model"
"""The key of the config that gives the base model."""


def key_of_model(index: int) -> str:
    """The key of the config that gives a model: `models[0].path`."""
    return f"models[{index}].path"


@frozen(kw_only=True)
class Settings:
    """A config after all its checks: models with unique names, options by owner, defaults filled in."""

    strategy: str
    """The name of the strategy."""
    models: tuple[ModelSettings, ...]
    """What is merged, in the order of the config."""
    base_model: str | None
    """The path of the base model, or a text about it where it is live; None: there is none, or a model may bring it."""
    output_path: str | None
    """Where the merged model goes, as the user wrote it."""
    options: CoreOptions
    """Options of every merge."""
    strategy_options: Any
    """An instance of the strategy's `Options`; None where it has none."""
    model_options: tuple[Any, ...]
    """What the strategy wants to know of each model: instances of its `ModelOptions`; None where it has none."""
    plugin_options: Mapping[str, Any]
    """Those of the plugins that are always on, by their names. A plugin is handed its own."""
    sections: Mapping[str, Any]
    """Sections of the config that plugins obey, by key; None for one that is not given."""
    validation: ValidationSettings | None
    """How the merged model is validated; None where the config says nothing of it."""
    given: Mapping[str, Any]
    """The config as the user gave it, for the manifest and the model card."""
    file: str = ""
    """The file that the config was read from; empty for one that was not."""
    live: Mapping[str, Any] = field(factory=dict, repr=False)
    """Models given as objects, by their keys in the config, which has texts in their place."""
    merges: "Mapping[str, Settings]" = field(factory=dict, repr=False)
    """Models that are merges themselves, by their keys (`models[0].path`, `base_model`); one that the config names, and
    that is used twice, is one object."""
    where: str = ""
    """Where the config gives this merge (`models[0].merge`, `merges.soup`); empty for the one that is written."""
    notes: Sequence[Problem] = ()
    """Warnings and notes about the config itself."""
    strict: bool = False
    """Whether warnings are errors."""
    acts_on_base: bool = False
    """Whether the strategy merges what models change of the base model."""
    given_names: bool = False
    """Whether the result goes back to a program that has the donor's tensors, by the names that it has them by."""
    of_process: Mapping[str, str] = field(factory=dict)
    """Plugins that are not installed, and were handed over by this process (`strategy 'mine'`), each with the BLAKE3
    digest of its source."""

    @property
    def donor(self) -> int:
        """The index of the checkpoint whose config and tokenizer are taken: the base model if any, else the first."""
        return len(self.models) if self.base_model is not None else 0

    @property
    def paths(self) -> dict[str, str]:
        """The paths of the models and of the base model, by their keys in the config."""
        return {key: path for key, path in self._given.items() if key not in {*self.live, *self.merges}}

    @property
    def all_paths(self) -> dict[str, str]:
        """The paths of this merge and of all merges within it, by their keys in the config."""
        found = {f"{self.where}.{key}".lstrip("."): path for key, path in self.paths.items()}
        for inner in self.merges.values():
            found |= inner.all_paths
        return found

    @property
    def has_live(self) -> bool:
        """Whether a model, of this merge or of one within it, was given as an object."""
        return bool(self.live) or any(inner.has_live for inner in self.merges.values())

    def written(self, info: TensorInfo) -> str:
        """The dtype that a tensor becomes, as in safetensors. A merge within another one hands on at least float32."""
        dtype = self.options.written(info.written)
        wider = self.where and self.options.torch_dtype == "auto" and DTYPES[dtype].family == "float"
        return "F32" if wider and DTYPES[dtype].bits < DTYPES["F32"].bits else dtype

    @property
    def _given(self) -> dict[str, str]:
        paths = {key_of_model(i): model.path for i, model in enumerate(self.models)}
        return paths | ({BASE: self.base_model} if self.base_model is not None else {})
