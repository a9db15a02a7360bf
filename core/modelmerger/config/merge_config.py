"""`MergeConfig`: what the user writes, in Python or in a file, kept as plain data and checked when it is made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import define, field, fields

from modelmerger.config.documents.document import dump_yaml, read_document
from modelmerger.config.models_in_memory import set_apart
from modelmerger.config.resolve import resolve
from modelmerger.config.sections import as_written
from modelmerger.values.errors import ConfigError, Problem


@define(init=False, slots=False)
class MergeConfig:
    """What to merge and how.

    Values are plain dicts and lists and may be changed. They are checked when the config is made, and again whenever it
    is used. Raises `ConfigError`, whose `.problems` lists everything that is wrong.

    ```python
    config = MergeConfig(
        strategy="weighted",
        models=[{"path": "./models/chat", "weight": 0.6}, {"path": "./models/formal", "weight": 0.4}],
        output_path="./models/merged",
    )
    ```
    """

    strategy: str
    """The name of an installed strategy."""
    models: list[dict[str, Any]]
    """One mapping a model, with `path`, and optionally `weight` (default 1.0), `name`, and options of the strategy. A
    module or a mapping of tensors may stand in place of a path, and `merge`, a mapping with `strategy`, `models` and so
    on, in place of `path`."""
    base_model: Any
    """The model that the others were tuned from: a path, a module, a mapping of tensors, or a mapping with `merge`."""
    output_path: str | None
    """Where the merged model goes."""
    options: dict[str, Any]
    """How it is merged: options of the core, of the strategy and of plugins."""
    validation: dict[str, Any]
    """How the merged model is measured."""
    merges: dict[str, Any]
    """Merges that paths can name, by their names."""
    sections: dict[str, dict[str, Any]] = field(repr=False)
    """Sections that plugins bring, such as `peft_config`. Each is an attribute of the config too."""

    def __init__(
        self,
        /,
        strategy: str,
        models: list[dict[str, Any]],
        base_model: Any = None,
        output_path: str | None = None,
        options: dict[str, Any] | None = None,
        validation: dict[str, Any] | None = None,
        merges: dict[str, Any] | None = None,
        **sections: Any,
    ) -> None:
        given = (strategy, models, base_model, output_path, options if options is not None else {})
        more = (validation if validation is not None else {}, merges if merges is not None else {})
        self.__attrs_init__(*given, *more, sections)
        _, hooks = resolve(self.as_dict())
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
    def from_file(cls, path: str | Path) -> "MergeConfig":
        """Reads YAML, or JSON from a file named `*.json`."""
        return cls.from_dict(read_document(Path(path)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "MergeConfig":
        """A config from the keys of a config file."""
        values = {str(key): value for key, value in data.items() if value is not None}
        return cls(**{"strategy": None, "models": None, **values})

    def as_dict(self) -> dict[str, Any]:
        """The config as plain data, without keys that are left at their default."""
        values = {name: getattr(self, name) for name in as_written(self.sections)}
        return {name: value for name, value in values.items() if value is not None and value != {}}

    def to_yaml(self) -> str:
        """The config as YAML, which `from_file` reads as an equal config. Raises `ConfigError` for models in memory."""
        _, live = set_apart(self.as_dict())
        if live:
            message = "is a model in memory, which no file can name. Save it, and give its directory"
            raise ConfigError(*(Problem(message, key) for key in live))
        return dump_yaml(self.as_dict())
