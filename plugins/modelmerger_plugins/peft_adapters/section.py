"""`peft_config`: what the config of a merge says of adapters."""

import os
from collections.abc import Iterator
from typing import Any

from attrs import Attribute, field, frozen
from modelmerger import LoadContext, Problem, Section, Settings, user_path

NAME = "peft_config"
FILE = "adapter_config.json"
"""What every directory of an adapter holds."""
BASE_KEY = f"{NAME}.base_model_path"
"""Where a config gives the base of adapters."""
DEFAULT = "default"
"""The adapter of `adapter_names` that is the directory itself."""
ADVICE = "Set peft_config.merge_adapters: false, which folds each adapter into its base"
"""What to do where updates cannot be merged."""


def _plain_names(_: Any, __: "Attribute[Any]", names: tuple[str, ...]) -> None:
    if not names or len(set(names)) != len(names):
        raise ValueError(f"must hold at least one name, each once, got {list(names)}")
    if wrong := [name for name in names if name in ("", ".", "..") or set(name) & set("/\\\0")]:
        raise ValueError(f"must hold names of sub-folders, and {wrong[0]!r} is none")


@frozen(kw_only=True)
class PeftConfig:
    """Of use to adapters alone."""

    base_model_path: str | None = None
    """The model that the adapters belong to; else the one that each adapter names, if it is on this machine."""
    adapter_names: tuple[str, ...] = field(default=(DEFAULT,), validator=_plain_names)
    """Which adapters of each directory; 'default' is the directory itself, others are its sub-folders. Their updates
    are added up."""
    merge_adapters: bool = False
    """Whether the strategy works on the adapters' updates, or on full models."""


SECTION = Section(NAME, PeftConfig, brings_base="adapters know theirs, given a peft_config")


def of_adapters(settings: Settings | LoadContext | None) -> PeftConfig:
    """What the config says of adapters; the defaults where it says nothing, or there is no merge."""
    if isinstance(settings, LoadContext):
        settings = settings.settings
    found = settings.sections.get(NAME) if settings is not None else None
    return found if isinstance(found, PeftConfig) else PeftConfig()


def whole_key(settings: Settings | None, key: str) -> str:
    """A key of a merge as the whole config has it: `models[0].merge.base_model` in a merge within the merge."""
    return f"{settings.where}.{key}" if settings is not None and settings.where else key


def given_base(settings: Settings | None) -> str | None:
    """The base model that the config of the merge names; no adapter was trained on one that is a merge itself."""
    base = settings.base_model if settings is not None and "base_model" not in settings.merges else None
    return of_adapters(settings).base_model_path or base


def without_effect(settings: Settings) -> Iterator[Problem]:
    """A note on a section that no model has a use for, as none is an adapter."""
    if settings.sections.get(NAME) is not None:
        message = "none of the models is an adapter, so peft_config has no effect."
        yield Problem(message, NAME, severity="note")


def in_config(settings: Settings) -> Iterator[Problem]:
    """From the config alone: a base that it names twice is one base."""
    base, ours = settings.paths.get("base_model"), of_adapters(settings).base_model_path
    if base is not None and ours is not None and not _is_one_path(base, ours):
        message = f"is {ours!r}, and base_model is {base!r}. Give the same path, or one of them"
        yield Problem(message, BASE_KEY)


def _is_one_path(left: str, right: str) -> bool:
    """Whether two texts of the config name one directory."""
    return left == right or os.path.abspath(user_path(left)) == os.path.abspath(user_path(right))
