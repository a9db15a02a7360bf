"""adapter_config.json: what kind of adapter, and how its factors are scaled. What we do not know is refused by name."""

import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from modelmerger import InputError, Problem, read_beside, read_json, shown

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
_REPEATED_GROUP = re.compile(r"\)[*+?{]")
_QUANTIFIER = re.compile(r"[*+?{]")


@frozen(eq=False)
class AdapterConfig:
    """A config that was looked through: its kind can be merged, and all that it sets is understood."""

    path: Path
    """Of the file, for messages."""
    values: Mapping[str, Any]
    """The fields as the file has them."""

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return str(self.values["peft_type"]).upper()

    @property
    def base(self) -> str:
        """What the adapter says it was trained on: text from a stranger, not yet looked at."""
        base = self.values.get("base_model_name_or_path")
        return base if isinstance(base, str) else ""

    def flag(self, name: str) -> bool:
        """A field that is true or false; false where it is missing."""
        return bool(self.values.get(name))

    @property
    def targets(self) -> Sequence[str]:
        """What `target_parameters` lists."""
        return self.values.get("target_parameters") or ()

    def rank(self, module: str) -> Any:
        """The rank that the config gives a module: what stands there, of whatever type."""
        return self._of_module("rank_pattern", module, self.values.get("r"))

    def scale(self, module: str, rank: int) -> float:
        """What a module's update is multiplied by: α/r, or α/√r for a rank-stabilised adapter. `rank`: r.

        Raises `InputError` where α is no finite number.
        """
        alpha = self._of_module("alpha_pattern", module, self.values.get("lora_alpha", self.values.get("alpha")))
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) <= sys.float_info.max:
            raise InputError(
                Problem(f"has no finite number as the alpha of {shown(module)}, but {alpha!r}.", str(self.path))
            )
        return float(alpha) / (math.sqrt(rank) if self.flag("use_rslora") else rank)

    def _of_module(self, field: str, module: str, default: Any) -> Any:
        """The first pattern that the end of the module's name matches decides, as in PEFT."""
        for pattern, value in (self.values.get(field) or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        return default


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
            f"is an adapter of the kind {kind!r}, which cannot be merged; {', '.join(KINDS)} can. "
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
            f"was begun with init_lora_weights {start!r}, which changes the base model too. Save it as a plain LoRA "
            "(save_pretrained with path_initial_model_for_weight_conversion), then merge that.",
            path,
        )
    targets = values.get("target_parameters") or []
    if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
        yield Problem(f"has target_parameters {shown(targets)}, where a list of names is due.", path)
    for field in ("rank_pattern", "alpha_pattern"):
        yield from _pattern_problems(field, values.get(field), path)


def _pattern_problems(field: str, patterns: Any, path: str) -> Iterator[Problem]:
    """Patterns are regular expressions from a stranger: only such as cannot take forever are tried."""
    if not isinstance(patterns, dict | None):
        yield Problem(f"has {field} {shown(patterns)}, where a mapping is due.", path)
        return
    for pattern, value in (patterns or {}).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield Problem(f"has {shown(value)} for {shown(pattern)} in {field}, where a number is due.", path)
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError):
            yield Problem(f"has {shown(pattern)} in {field}, which is no pattern.", path)
            continue
        if len(pattern) > 300 or len(_QUANTIFIER.findall(pattern)) > 3 or _REPEATED_GROUP.search(pattern):
            yield Problem(
                f"has {shown(pattern)} in {field}, a pattern that could take very long. Name the modules.", path
            )
