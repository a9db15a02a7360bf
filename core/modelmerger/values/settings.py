"""The config, checked and frozen: what every later stage reads. `MergeConfig` is what the user writes; this is what it means."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from attrs import Attribute, field, frozen, validators

from modelmerger.config.models_in_memory import place_of
from modelmerger.values.option_checks import Check, between, finite, not_empty, not_yet, one_of
from modelmerger.values.traits import Operation
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
        sound = len(value) > 0 and all(re.fullmatch(f"{_DEVICE}|disk|[0-9]+", str(place)) for place in value.values())
    return None if sound else f"must be one of {allowed}, got {value!r}"


_DEVICE_MAP = Check({"pattern": f"^({_STRATEGIES}|{_DEVICE})$"}, _device_map_problem)
_AT_LEAST_ONE = Check({"minItems": 1}, lambda names: None if names else "must hold at least one name")


def _finite_values(_: Any, __: "Attribute[Any]", values: Mapping[str, float]) -> None:
    for value in values.values():
        finite(_, __, value)


def _not_both(instance: "CoreOptions", _: "Attribute[Any]", value: bool | None) -> None:
    if value and instance.sequential_loading:
        raise ValueError("contradicts 'sequential_loading': both are true. Give one of them")


@frozen(kw_only=True)
class CoreOptions:
    """Options of every merge, whatever the strategy.

    torch_dtype: dtype written for floating tensors; auto: the donor's, tensor by tensor.
    device_map: where slices are merged and where the returned model is placed; auto: a GPU where torch sees one. Out of its
        memory, the merge goes on on the CPU.
    low_memory_mode: one worker, the smallest slices; the weights of the returned model stay on the disk.
    sequential_loading: one worker, one input file open at a time; turns parallel_loading off.
    parallel_loading: the inputs of a slice are read ahead, all at once. On unless sequential_loading is.
    cache_models: a `ModelMerger` keeps the models that it opened for its next merge, as long as nothing of them changes on disk.
    use_safetensors: false: write pytorch_model.bin, as torch.save does, instead.
    max_shard_size: size of a file of weights, "5GB", "500MB", "1GiB" or a number of bytes.
    offload_folder: scratch space of merges that have no output_path, and of what a returned model offloads; made if need be.
    torch_compile: the strategy's arithmetic goes through torch.compile; without a compiler, one warning, and it does not.
    gradient_checkpointing: on in the returned model, whose use_cache is off then.
    verbose: the modelmerger logger says what happens.
    log_level: level of the modelmerger logger; wins over verbose.
    seed: the only source of randomness; recorded in the manifest.
    allow_nonfinite: let NaN and infinity through, which otherwise end the merge.
    allow_pickle: read pickled weights too, through torch's unpickler for weights alone.
    missing_tensors: what becomes of tensors that only some models have; error: the merge is refused; donor: those that the
        donor has are taken from it, the others left out; union: the others are taken from the first model that has them.
    merge_embeddings: false: the embedding is the donor's, bit for bit, and with it an LM head that is tied to it.
    merge_lm_head: false: the LM head is the donor's, bit for bit. True unless it is tied to the embedding.
    overwrite: replace an output directory that an earlier merge wrote, in one step.
    tokenizer_source: which model's vocabulary the merged model has.
    missing_tokens: the embedding of tokens that a model lacks.
    """

    torch_dtype: str = field(default="auto", validator=one_of("auto", *DTYPE_NAMES))
    device_map: str | dict[str, int | str] = field(default="auto", validator=_DEVICE_MAP)
    low_memory_mode: bool = False
    sequential_loading: bool = False
    parallel_loading: bool | None = field(default=None, validator=_not_both)
    cache_models: bool = False
    use_safetensors: bool = True
    max_shard_size: int | str = field(default="5GB", validator=_shard_size)
    offload_folder: str | None = field(default=None, validator=validators.optional(not_empty))
    torch_compile: bool = False
    gradient_checkpointing: bool = False
    verbose: bool = False
    log_level: str | None = field(default=None, validator=validators.optional(one_of(*LOG_LEVELS)))
    seed: int = field(default=0, validator=between(0, 2**63, open_above=True))
    allow_nonfinite: bool = False
    allow_pickle: bool = False
    missing_tensors: MissingTensors = "error"
    merge_embeddings: bool = True
    merge_lm_head: bool | None = None
    overwrite: bool = False
    tokenizer_source: str = field(default="base", validator=not_yet("base"))
    missing_tokens: str = field(default="mean_subtokens", validator=not_yet("mean_subtokens"))

    @property
    def level(self) -> str:
        """The level of the `modelmerger` logger; `log_level` wins over `verbose`."""
        return self.log_level or ("INFO" if self.verbose else "WARNING")

    @property
    def reads_ahead(self) -> bool:
        """Whether the inputs of a slice are read concurrently."""
        return not self.sequential_loading if self.parallel_loading is None else self.parallel_loading


@frozen(kw_only=True)
class ModelSettings:
    """One entry of `models`.

    path: a model's directory, a .safetensors file, a trainer's output directory, or a Hub id; in Python also a module, or a
        mapping of tensors.
    weight: how much of the model goes into the merge: a number, numbers from the first layer to the last, or either by patterns
        on tensor names, with 'default' for the rest.
    name: what messages and the model card call it; empty: the last part of the path.
    operation: task_arithmetic adds or subtracts what the model learned.
    """

    path: str = field(validator=not_empty)
    weight: Weight = field(default=1.0, validator=sound_weight)
    name: str = ""
    operation: Operation = "add"


def _plain_names(_: Any, __: "Attribute[Any]", names: tuple[str, ...]) -> None:
    if not names or len(set(names)) != len(names):
        raise ValueError(f"must hold at least one name, each once, got {list(names)}")
    if wrong := [name for name in names if name in ("", ".", "..") or set(name) & set("/\\\0")]:
        raise ValueError(f"must hold names of sub-folders, and {wrong[0]!r} is none")


@frozen(kw_only=True)
class PeftSettings:
    """`peft_config`: of use to adapters alone.

    base_model_path: the model that the adapters belong to; else the one that each adapter names, if it is on this machine.
    adapter_names: which adapters of each directory; 'default' is the directory itself, others are its sub-folders. Their updates
        are added up.
    merge_adapters: whether the strategy works on the adapters' updates, or on full models.
    """

    base_model_path: str | None = None
    adapter_names: tuple[str, ...] = field(default=("default",), validator=_plain_names)
    merge_adapters: bool = False


@frozen(kw_only=True)
class ValidationSettings:
    """`validation`. Given without `run_tests`, it is on.

    run_tests: whether the merged model is validated.
    test_prompts: prompts, or a mapping from labels to prompts.
    chat_template: whether prompts go through the tokenizer's chat template; auto: where it has one.
    metrics: names of validators. Without it perplexity, and dialect_prompts where test_prompts are given.
    sample_size: how many texts are scored, and how many prompts are answered; without it, all.
    test_batch_size: how many texts or prompts at a time.
    quick_test: one prompt per label, at most 50 texts, answers of at most 16 tokens.
    dataset: a file of texts, one a line, or JSONL with a 'text' and perhaps a 'dialect', its label, in each line.
    max_new_tokens: length of generated answers at most.
    seed: makes generation reproducible.
    compare_with_sources: the same metrics for every source model.
    thresholds: the worst acceptable value of each metric.
    """

    run_tests: bool = True
    test_prompts: tuple[str, ...] | dict[str, tuple[str, ...]] = ()
    chat_template: bool | Literal["auto"] = "auto"
    metrics: tuple[str, ...] | None = field(default=None, validator=validators.optional(_AT_LEAST_ONE))
    sample_size: int | None = field(default=None, validator=validators.optional(between(1, 2**31)))
    test_batch_size: int = field(default=8, validator=between(1, 2**31))
    quick_test: bool = False
    dataset: str | None = field(default=None, validator=validators.optional(not_empty))
    max_new_tokens: int = field(default=64, validator=between(1, 2**20))
    seed: int = field(default=0, validator=between(0, 2**63, open_above=True))
    compare_with_sources: bool = False
    thresholds: dict[str, float] | None = field(default=None, validator=validators.optional(_finite_values))

    @property
    def validator_names(self) -> tuple[str, ...]:
        """The validators to run, each once."""
        by_default = ("perplexity", "dialect_prompts") if self.test_prompts else ("perplexity",)
        return tuple(dict.fromkeys(self.metrics or by_default))

    @property
    def new_tokens(self) -> int:
        """Tokens of an answer at most."""
        return min(16, self.max_new_tokens) if self.quick_test else self.max_new_tokens

    @property
    def most_texts(self) -> int | None:
        """How many texts are scored at most; None: all."""
        return min(50, self.sample_size or 50) if self.quick_test else self.sample_size


@frozen(kw_only=True)
class Settings:
    """A config after all its checks: models with unique names, options by owner, defaults filled in."""

    strategy: str
    models: tuple[ModelSettings, ...]
    base_model: str | None
    output_path: str | None
    options: CoreOptions
    strategy_options: Any
    plugin_options: Mapping[str, Any]
    peft: PeftSettings | None
    validation: ValidationSettings | None
    given: Mapping[str, Any]
    """The config as the user gave it, for the manifest and the model card."""
    live: Mapping[str, Any] = field(factory=dict, repr=False)
    """Models given as objects, by their place in the config, where a text stands for them."""

    @property
    def paths(self) -> dict[str, str]:
        """The paths of the models and of the base model, by their place in the config."""
        places = {place_of(i): model.path for i, model in enumerate(self.models)}
        places |= {"base_model": self.base_model} if self.base_model is not None else {}
        return {place: path for place, path in places.items() if place not in self.live}
