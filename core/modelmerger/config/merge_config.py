"""`MergeConfig`: what the user writes, in Python or in a file, kept as plain data and checked when it is made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import define, field

from modelmerger.config.documents.document import DocumentError, dump_yaml, read_document
from modelmerger.config.models_in_memory import set_apart
from modelmerger.config.resolve import SHAPE_OF_CONFIG, resolve
from modelmerger.config.strict_attrs import unknown_keys
from modelmerger.values.errors import ConfigError, Problem


@define
class MergeConfig:
    """What to merge and how.

    strategy: the name of an installed strategy. models: one mapping a model, with `path`, and optionally `weight` (default
    1.0), `name`, `operation`. base_model: the model that the others were tuned from. Both may be modules or mappings of tensors
    instead of paths. output_path: where the merged model goes.
    options, peft_config, validation: see the reference. Values are plain dicts and lists and may be changed; they are checked
    when the config is made and again whenever it is used. Raises `ConfigError`, whose `.problems` lists everything wrong.

    ```python
    config = MergeConfig(
        strategy="weighted",
        models=[{"path": "./models/chat", "weight": 0.6}, {"path": "./models/formal", "weight": 0.4}],
        output_path="./models/merged",
    )
    ```
    """

    strategy: str
    models: list[dict[str, Any]]
    base_model: Any = None
    output_path: str | None = None
    options: dict[str, Any] = field(factory=dict)
    peft_config: dict[str, Any] = field(factory=dict)
    validation: dict[str, Any] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        resolve(self.as_dict())

    @classmethod
    def from_file(cls, path: str | Path) -> "MergeConfig":
        """Reads YAML, or JSON from a file named `*.json`."""
        return cls.from_dict(read_config(path))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "MergeConfig":
        """From the keys of a config file."""
        if problems := unknown_keys(data, SHAPE_OF_CONFIG, "config"):
            raise ConfigError(*problems)
        values = {key: value for key, value in data.items() if value is not None}
        return cls(**{"strategy": None, "models": None, **values})

    def as_dict(self) -> dict[str, Any]:
        """The config as plain data, without what is left at its default."""
        data = {name: getattr(self, name) for name in SHAPE_OF_CONFIG}
        return {name: value for name, value in data.items() if value is not None and value != {}}

    def to_yaml(self) -> str:
        """The config as YAML that `from_file` reads back as an equal config. Raises `ConfigError` for models in memory."""
        _, live = set_apart(self.as_dict())
        if live:
            message = "is a model in memory, which no file can name. Save it, and give its directory"
            raise ConfigError(*(Problem(message, place) for place in live))
        return dump_yaml(self.as_dict())


def read_config(path: str | Path) -> dict[str, Any]:
    """The plain data of a config file; what is wrong with the file itself becomes a `ConfigError`."""
    try:
        return read_document(Path(path))
    except DocumentError as error:
        refused = ConfigError(*(Problem(problem, str(path)) for problem in error.problems))
        refused.omitted = error.omitted
        raise refused from error
