"""adapter_config.json: what kind of adapter, and how its factors are scaled. What we do not know is refused by name."""

import math
import re
import reprlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen
from modelmerger import InputError, Problem, read_beside, read_json, shown

from modelmerger_plugins.peft_adapters.reading import patterns

FILE = "adapter_config.json"
LIMIT = 16 << 20
"""The largest file that is read, in bytes."""
KINDS = ("LORA", "IA3", "LOHA", "LOKR", "VERA")
"""What can be merged, as `peft_type` says it."""
MEANINGLESS = {
    # of every adapter: where it comes from, and how it was trained
    *(
        "peft_type",
        "peft_version",
        "task_type",
        "inference_mode",
        "auto_mapping",
        "revision",
        "base_model_name_or_path",
    ),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "bias"),
    # of LoRA's training
    *(
        "lora_dropout",
        "megatron_config",
        "megatron_core",
        "loftq_config",
        "eva_config",
        "corda_config",
        "lora_ga_config",
    ),
    *("qalora_group_size", "runtime_config", "ensure_weight_tying"),
    # of the others' training
    *(
        "rank_dropout",
        "module_dropout",
        "rank_dropout_scale",
        "init_weights",
        "feedforward_modules",
        "init_ia3_weights",
    ),
    *("decompose_both", "decompose_factor", "projection_prng_key", "vera_dropout", "d_initial"),
}
"""Fields that say nothing about what the stored tensors mean, whatever their value."""
MEANT = {
    *("r", "lora_alpha", "alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "fan_in_fan_out"),
    *("lora_bias", "init_lora_weights", "trainable_token_indices", "use_effective_conv2d"),
    *("target_parameters", "save_projection", "layer_replication"),
}
"""Fields that are understood."""
FLAGS = ("use_rslora", "use_dora", "fan_in_fan_out", "lora_bias", "use_effective_conv2d", "save_projection")
"""Fields that must be true or false."""
HARMLESS_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Initialisations that leave the base model as it is. The others put a part of its weights into the factors."""
MOST_TARGETS = 1000
"""The most names in `target_parameters`."""
_PART_OF_REVISION = re.compile(r"(?!\.)[^\s\\:\x00-\x1f\x7f]{1,200}")


@frozen(eq=False)
class AdapterConfig:
    """A config that was looked through: its kind can be merged, and all that it sets is understood."""

    path: Path
    """Of the file, for messages."""
    values: Mapping[str, Any]
    """The fields as the file has them."""
    _ranks: patterns.Patterns = attrs.field(init=False, repr=False)
    """Those of `rank_pattern`."""
    _alphas: patterns.Patterns = attrs.field(init=False, repr=False)
    """Those of `alpha_pattern`."""

    @_ranks.default
    def _rank_patterns(self) -> patterns.Patterns:
        return patterns.Patterns(self.values.get("rank_pattern") or {})

    @_alphas.default
    def _alpha_patterns(self) -> patterns.Patterns:
        return patterns.Patterns(self.values.get("alpha_pattern") or {})

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return str(self.values["peft_type"]).upper()

    @property
    def base(self) -> str:
        """What the adapter says it was trained on: text from a stranger, not yet looked at."""
        base = self.values.get("base_model_name_or_path")
        return base if isinstance(base, str) else ""

    @property
    def revision(self) -> str:
        """The branch, tag or commit of the base that the adapter names; empty where it names none."""
        revision = self.values.get("revision")
        return revision if isinstance(revision, str) else ""

    def flag(self, name: str) -> bool:
        """A field that is true or false; false where it is missing."""
        return bool(self.values.get(name))

    @property
    def targets(self) -> Sequence[str]:
        """What `target_parameters` lists."""
        return self.values.get("target_parameters") or ()

    def rank(self, module: str) -> Any:
        """The rank that the config gives a module: what stands there, of whatever type."""
        return self._of_module(self._ranks, module, self.values.get("r"))

    def scale(self, module: str, rank: int) -> float:
        """What a module's update is multiplied by: α/r, or α/√r for a rank-stabilised adapter. `rank`: r.

        Raises `InputError` where α is no finite number.
        """
        alpha = self._of_module(self._alphas, module, self.values.get("lora_alpha", self.values.get("alpha")))
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) <= sys.float_info.max:
            raise InputError(
                Problem(
                    f"has no finite number as the alpha of {shown(module)}, but {reprlib.repr(alpha)}.", str(self.path)
                )
            )
        return float(alpha) / (math.sqrt(rank) if self.flag("use_rslora") else rank)

    def check_patterns(self, modules: int) -> None:
        """Raises `InputError` where it would take too long to try the patterns on so many modules."""
        for name, given in (("rank_pattern", self._ranks), ("alpha_pattern", self._alphas)):
            patterns.check_effort(name, given, modules, str(self.path))

    def _of_module(self, given: patterns.Patterns, module: str, default: Any) -> Any:
        """The first pattern that fits the end of the module's name decides, as in PEFT."""
        if not given.values:
            return default
        patterns.check_module(module, str(self.path))
        return given.of(module, default)


def read_config(directory: Path) -> AdapterConfig:
    """The config of an adapter. Nothing that it names is imported.

    Raises `InputError` with everything that stands against merging it.
    """
    path = directory / FILE
    values = read_json(read_beside(directory, FILE, LIMIT) or b"", str(path))
    if not isinstance(values, dict):
        raise InputError(Problem("is not a JSON object.", str(path)))
    if problems := list(_problems(values, str(path))):
        raise InputError(*problems)
    return AdapterConfig(path, values)


def _problems(values: Mapping[str, Any], path: str) -> Iterator[Problem]:
    kind = values.get("peft_type")
    if not isinstance(kind, str) or kind.upper() not in KINDS:
        yield Problem(
            f"is an adapter of the kind {shown(repr(kind))}, which cannot be merged; {', '.join(KINDS)} can. "
            "Fold it into its base with PEFT (merge_and_unload), then merge the full model.",
            path,
        )
        return
    for field in FLAGS:
        if not isinstance(values.get(field), bool | None):
            yield Problem(f"sets {field} to {shown(values[field])}, where true or false is due.", path)
    for field, value in values.items():
        if field not in MEANINGLESS | MEANT and value not in (None, False, "", [], {}):
            yield Problem(
                f"sets {shown(field)} to {shown(value)}, and what that does to the weights is not known here. "
                "Fold it into its base with PEFT (merge_and_unload), then merge the full model.",
                path,
            )
    if kind.upper() == "VERA" and not values.get("save_projection", True):
        yield Problem(
            "was saved without the projections that its layers share, and their seed alone gives others on another "
            "machine. Save it again with save_projection=True.",
            path,
        )
    start = values.get("init_lora_weights", True)
    if not any(start is known or (isinstance(start, str) and start == known) for known in HARMLESS_STARTS):
        yield Problem(
            f"was begun with init_lora_weights {shown(repr(start))}, which changes the base model too. "
            "Save it as a plain LoRA (save_pretrained with path_initial_model_for_weight_conversion), then merge that.",
            path,
        )
    targets = values.get("target_parameters") or []
    if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
        yield Problem(f"has target_parameters {shown(targets)}, where a list of names is due.", path)
    elif len(targets) > MOST_TARGETS:
        yield Problem(
            f"has {len(targets)} target_parameters, at most {MOST_TARGETS} are read. Name them by their last parts.",
            path,
        )
    revision = values.get("revision")
    if isinstance(revision, str) and revision and not _is_revision(revision):
        yield Problem(
            f"names the revision {shown(revision)!r} of its base model, and that is no branch, tag or commit. "
            "Correct it, or set it to null.",
            path,
        )
    for field in ("rank_pattern", "alpha_pattern"):
        yield from patterns.problems_in(field, values.get(field), path)


def _is_revision(text: str) -> bool:
    """Whether it may name a branch, a tag or a commit: such a name is a path below a directory, and never leads out."""
    return ".." not in text and all(_PART_OF_REVISION.fullmatch(part) for part in text.split("/"))
