"""`MergeConfig`: what the user writes, in Python or in a file, kept as plain data and checked when it is made."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, evolve, field, fields

from modelmerger.config.documents.document import dump_yaml
from modelmerger.config.models_in_memory import set_apart, shown_in_memory
from modelmerger.config.plain_values import plain
from modelmerger.config.plugins_in_process import name_plugins
from modelmerger.config.reading import GivenConfig, read_config
from modelmerger.config.resolve import resolve
from modelmerger.config.sections import CORE_KEYS, as_written
from modelmerger.hooks.assembly import Hooks
from modelmerger.hooks.registry import Registry
from modelmerger.values.errors import ConfigError, Problem
from modelmerger.values.settings import Settings


@define(init=False, slots=False)
class MergeConfig:
    """What to merge and how.

    Values are plain dicts and lists and may be changed. They are checked when the config is made, and again whenever it
    is used. A `pathlib.Path` may stand wherever a path may, a number or a vector of numpy or torch wherever numbers
    may, and `torch.float16` in place of its name; they are kept as plain data. Raises `ConfigError`, whose `.problems`
    lists everything that is wrong.

    ```python
    config = MergeConfig(
        strategy="weighted",
        models=[{"path": "./models/chat", "weight": 0.6}, {"path": "./models/formal", "weight": 0.4}],
        output_path="./models/merged",
    )
    ```
    """

    strategy: Any
    """The name of an installed strategy; or a strategy itself, as a module or an object."""
    models: list[dict[str, Any]] = field(repr=shown_in_memory)
    """One mapping a model, with `path`, and optionally `weight` (default 1.0), `name`, and options of the strategy. A
    module or a mapping of tensors may stand in place of a path, and `merge`, a mapping with `strategy`, `models` and so
    on, in place of `path`."""
    base_model: Any = field(repr=shown_in_memory)
    """The model that the others were tuned from: a path, a module, a mapping of tensors, or a mapping with `merge`."""
    output_path: str | None
    """Where the merged model goes."""
    options: dict[str, Any]
    """How it is merged: options of the core, of the strategy and of plugins."""
    validation: dict[str, Any]
    """How the merged model is measured. Validators may stand among its `metrics` in place of names."""
    merges: dict[str, Any] = field(repr=shown_in_memory)
    """Merges that paths can name, by their names."""
    sections: dict[str, dict[str, Any]] = field(repr=False)
    """Sections that plugins bring, such as `peft_config`. Each is an attribute of the config too."""
    strict: bool = field(repr=False, eq=False)
    """Whether warnings are errors. It is no key of config files, and changes nothing that is merged."""
    _origin: GivenConfig = field(repr=False, eq=False)

    def __init__(
        self,
        /,
        strategy: Any,
        models: list[dict[str, Any]],
        base_model: Any = None,
        output_path: str | os.PathLike[str] | None = None,
        options: dict[str, Any] | None = None,
        validation: dict[str, Any] | None = None,
        merges: dict[str, Any] | None = None,
        *,
        strict: bool = False,
        **sections: Any,
    ) -> None:
        given = (strategy, models, base_model, merges, output_path, options, validation)
        self._fill(dict(zip(CORE_KEYS, given, strict=True)) | sections, strict, GivenConfig({}))

    def _fill(self, data: Mapping[str, Any], strict: bool, origin: GivenConfig) -> None:
        data = plain(data)
        sections = {key: value for key, value in data.items() if key not in CORE_KEYS}
        core: dict[str, Any] = {key: data.get(key) for key in CORE_KEYS}
        core |= {key: {} for key in ("options", "validation", "merges") if core[key] is None}
        self.__attrs_init__(**core, sections=sections, strict=strict, origin=origin)
        _, hooks = self.resolved()
        self._origin = evolve(origin, text="")  # whoever changes a value does not change the file
        for section in hooks.sections:
            self.sections.setdefault(section.name, {})

    def __getattr__(self, name: str) -> Any:
        sections = self.__dict__.get("sections", {})
        if name not in sections:
            raise AttributeError(f"'MergeConfig' object has no attribute {name!r}")
        return sections[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in {known.name for known in fields(MergeConfig)}:
            super().__setattr__(name, value)
        elif name in self.sections:
            self.sections[name] = value
        else:
            raise AttributeError(f"'MergeConfig' object has no attribute {name!r}")

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, read: Mapping[str, Any] | None = None, strict: bool = False
    ) -> "MergeConfig":
        """Reads YAML, or JSON from a file named `*.json`; or what an installed plugin reads as a config.

        read: options of that plugin. strict: whether warnings are errors. Raises `ConfigError`.
        """
        given = read_config(Path(path), Registry.installed(), read)
        return cls._made(given.data, strict, given)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, strict: bool = False) -> "MergeConfig":
        """A config from the keys of a config file. strict: whether warnings are errors. Raises `ConfigError`."""
        if not isinstance(data, Mapping):
            raise ConfigError(f"the config must be a mapping, got {type(data).__name__}. For a file, use from_file.")
        return cls._made(data, strict, GivenConfig({}))

    @classmethod
    def of(cls, config: "ConfigLike") -> "MergeConfig":
        """The config itself; or that of a mapping with its keys, or of a file by its path. Raises `ConfigError`."""
        if isinstance(config, MergeConfig):
            return config
        if isinstance(config, str | os.PathLike):
            return cls.from_file(config)
        if isinstance(config, Mapping):
            return cls.from_dict(config)
        raise ConfigError(
            f"the config must be a MergeConfig, a mapping or the path of a file, got {type(config).__name__}."
        )

    @classmethod
    def _made(cls, data: Mapping[str, Any], strict: bool, origin: GivenConfig) -> "MergeConfig":
        config = cls.__new__(cls)
        given = {str(key): value for key, value in data.items() if value is not None}
        config._fill(given, strict, origin)  # noqa: SLF001 (its own)
        return config

    @property
    def notes(self) -> Sequence[Problem]:
        """Warnings and notes of the plugin that read the config; they are among those of the merge."""
        return self._origin.notes

    def resolved(self, *, validating: bool = False) -> tuple[Settings, Hooks]:
        """The settings that the config comes to, and the plugins of its run. Raises `ConfigError`.

        validating: whether there is a validation even if the config does not ask for one.
        """
        with self._origin.blaming():
            return resolve(
                self.as_dict(), validating=validating, notes=self.notes, strict=self.strict, file=self._origin.file
            )

    def as_dict(self) -> dict[str, Any]:
        """The config as plain data, without keys that are left at their default."""
        values = {key: getattr(self, key) for key in CORE_KEYS} | self.sections
        written = {name: values[name] for name in as_written(self.sections)}
        return {name: values for name, values in plain(written).items() if values is not None and values != {}}

    def to_yaml(self) -> str:
        """The config as YAML, which `from_file` reads as an equal config.

        Raises `ConfigError` for models in memory, and for plugins that are given as objects.
        """
        plain, handed_over = name_plugins(self.as_dict())
        _, live = set_apart(plain)
        if handed_over:
            message = "is no installed plugin, and no file can name it. Package it, and give its name"
            raise ConfigError(*(Problem(message, str(provider)) for provider in handed_over))
        if live:
            message = "is a model in memory, which no file can name. Save it, and give its directory"
            raise ConfigError(*(Problem(message, key) for key in live))
        return dump_yaml(self.as_dict())


ConfigLike = MergeConfig | Mapping[str, Any] | str | os.PathLike[str]
"""A config, its keys and values, or the path of its file."""
