"""The generation settings of a model that an option names, in place of the donor's."""

from collections.abc import Mapping
from typing import Any

from modelmerger import Checkpoint

from modelmerger_plugins.tokenizer.json_objects import GENERATION, own_generation
from modelmerger_plugins.tokenizer.speaking import SPECIAL_IDS, special_ids


def adjusted(name: str, config: Mapping[str, Any], source: Checkpoint) -> Mapping[str, Any] | None:
    """The source's generation config, or the config with the ids of special tokens that the source goes by.

    Where both its configs have an id, that of its generation config counts, since generation goes by that. Only keys
    that the config has, at the top or in its part about texts, get another value.
    """
    generation = own_generation(source) or {}
    if name == GENERATION:
        return generation
    ids = special_ids(source.donor.config or {}) | {key: generation[key] for key in SPECIAL_IDS if key in generation}
    return _with_ids(config, ids)


def _with_ids(config: Mapping[str, Any], ids: Mapping[str, Any]) -> dict[str, Any]:
    changed = {key: ids.get(key, value) if key in SPECIAL_IDS else value for key, value in config.items()}
    if isinstance(inner := config.get("text_config"), Mapping):
        changed["text_config"] = _with_ids(inner, ids)
    return changed
