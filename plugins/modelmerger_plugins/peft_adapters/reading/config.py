"""adapter_config.json: what kind of adapter, and how its factors are scaled.

What PEFT reads and we do not is refused by name.
"""

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
from modelmerger_plugins.peft_adapters.reading.fields import of_fields
from modelmerger_plugins.peft_adapters.reading.kinds import against_kind, kind_of
from modelmerger_plugins.peft_adapters.section import FILE

LIMIT = 16 << 20
"""The largest file that is read, in bytes."""
FLAGS = ("use_rslora", "use_dora", "fan_in_fan_out", "lora_bias", "use_effective_conv2d", "save_projection")
"""Fields that must be true or false."""
HARMLESS_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""Initialisations that leave the base model as it is. The others put a part of its weights into the factors."""
MOST_TARGETS = 1000
"""The most names in `target_parameters`."""
_PART_OF_REVISION = re.compile(r"(?!\.)[^\s\\:\x00-\x1f\x7f]{1,200}")


@frozen(eq=False)
class AdapterConfig:
    """A config that was looked through: its kind can be merged, and all that PEFT reads of it is understood."""

    path: Path
    """Of the file, for messages."""
    values: Mapping[str, Any]
    """The fields as the file has them."""
    notes: Sequence[Problem] = ()
    """What is worth knowing of them."""
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

    def alpha(self, module: str) -> Any:
        """The alpha that the config gives a module: what stands there, of whatever type."""
        return self._of_module(self._alphas, module, self.values.get("lora_alpha", self.values.get("alpha")))

    def scale(self, module: str, rank: int) -> float:
        """What a module's update is multiplied by: α/r, or α/√r for a rank-stabilised adapter. `rank`: r.

        Raises `InputError` where α is no finite number.
        """
        alpha = self.alpha(module)
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
    values = read_json(read_beside(directory, FILE, LIMIT) or b"", str(path), infinite=())
    if not isinstance(values, dict):
        raise InputError(Problem("is not a JSON object.", str(path)))
    said = list(_problems(values, str(path)))
    if problems := [problem for problem in said if problem.severity == "error"]:
        raise InputError(*problems)
    return AdapterConfig(path, values, said)


def _problems(values: Mapping[str, Any], path: str) -> Iterator[Problem]:
    if reason := against_kind(values):
        yield Problem(reason, path)
        return
    for field in FLAGS:
        if not isinstance(values.get(field), bool | None):
            yield Problem(f"sets {field} to {shown(values[field])}, where true or false is due.", path)
    yield from of_fields(values, path)
    if kind_of(values) == "VERA" and not values.get("save_projection", True):
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
