"""The config, checked and frozen, as every later stage reads it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import Attribute, field, frozen, validators

from modelmerger.values.checkpoint import TensorInfo
from modelmerger.values.dtypes import DTYPES
from modelmerger.values.errors import Problem
from modelmerger.values.layers.taken import layers_problem
from modelmerger.values.options.checks import (
    Check,
    must_be_between,
    must_be_finite,
    must_not_be_empty,
)
from modelmerger.values.options.core import CoreOptions
from modelmerger.values.weights import Weight, sound_weight

_AT_LEAST_ONE = Check({"minItems": 1}, lambda names: None if names else "must hold at least one name")


EACH = 32
"""How many texts of each label are scored, and prompts answered, where the config does not say."""


def _sample(_: Any, __: "Attribute[Any]", size: Any) -> None:
    if isinstance(size, int):
        must_be_between(1, 2**31)(_, __, size)


def _finite_values(_: Any, __: "Attribute[Any]", values: Mapping[str, float]) -> None:
    for value in values.values():
        must_be_finite(_, __, value)


@frozen(kw_only=True)
class ModelSettings:
    """One entry of `models`."""

    path: str = field(validator=must_not_be_empty)
    """A model's directory, a .safetensors file, a trainer's output directory, a shell pattern, or a Hub id; in Python
    also a module, or a mapping of tensors."""
    weight: Weight = field(default=1.0, validator=sound_weight)
    """How much of the model goes into the merge: a number, numbers from the first layer to the last, or either by
    patterns on tensor names, with 'default' for the rest."""
    name: str = ""
    """What messages and the model card call it; empty: the last part of the path."""
    layers: tuple[int | tuple[int, ...], ...] | None = field(
        default=None, validator=validators.optional(Check({"minItems": 1}, layers_problem))
    )
    """Which of its layers are taken, in what order: a range [first, behind the last], or a list of ranges and single
    layers; without it, all."""


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
    sample_size: int | Literal["all"] | None = field(default=None, validator=_sample)
    """How many texts are scored, and how many prompts are answered; without it, 32 of each label."""
    test_batch_size: int = field(default=8, validator=must_be_between(1, 2**31))
    """How many texts or prompts at a time."""
    quick_test: bool = False
    """One prompt per label, at most 50 texts, answers of at most 16 tokens."""
    dataset: str | None = field(default=None, validator=validators.optional(must_not_be_empty))
    """A file of texts, one a line; JSONL with a 'text' and perhaps a 'dialect', its label, in each line; or a folder
    with a file of texts for each label (`gulf.txt`)."""
    max_new_tokens: int = field(default=64, validator=must_be_between(1, 2**20))
    """Length of generated answers at most."""
    seed: int = field(default=0, validator=must_be_between(0, 2**63, open_above=True))
    """Decides which texts and prompts are taken, and what is generated."""
    compare_with_sources: bool = False
    """The same metrics for every source model."""
    thresholds: dict[str, float] | None = field(default=None, validator=validators.optional(_finite_values))
    """The worst acceptable value of each metric."""

    @property
    def new_tokens(self) -> int:
        """Tokens of an answer at most."""
        return min(16, self.max_new_tokens) if self.quick_test else self.max_new_tokens

    @property
    def each(self) -> int | None:
        """How many texts or prompts of each label are taken at most; None: the label does not matter."""
        return EACH if self.sample_size is None else None

    @property
    def most_texts(self) -> int | None:
        """How many texts are scored at most, whatever their labels; None: no such limit."""
        return min(50, self.most_prompts or 50) if self.quick_test else self.most_prompts

    @property
    def most_prompts(self) -> int | None:
        """How many prompts are answered at most, whatever their labels; None: no such limit."""
        return self.sample_size if isinstance(self.sample_size, int) else None


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
    plugin_model_options: tuple[Mapping[str, Any], ...] = ()
    """What plugins that are always on want to know of each model, by their names: instances of their `ModelOptions`."""
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
    composes: bool = False
    """Whether the strategy composes its output, so that models need not have the same layers."""

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
