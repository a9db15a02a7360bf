"""The configs of the merged model, as far as special tokens and generation settings go."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelmerger import Checkpoint

from modelmerger_plugins.tokenizer.json_objects import GENERATION, own_generation
from modelmerger_plugins.tokenizer.options import Sources
from modelmerger_plugins.tokenizer.rows.configs import EOS, ends_of, moved_ids, with_ends, with_ids, with_lacking
from modelmerger_plugins.tokenizer.rows.matching import Matching
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


def matched(name: str, config: Mapping[str, Any], matching: Matching, sources: Sources) -> Mapping[str, Any] | None:
    """The config with the special tokens of the vocabulary's source, by the rows that they have in the merged model.

    generation_config.json names the ends of all models, unless an option says whose it is. None: it stays as it is.
    """
    models = matching.checkpoints
    donor, source = _index(sources.donor, models), models[matching.source]
    chosen = _index(sources.generation, models) if "generation_config_from" in sources.decided else None
    of_source = source.donor.config or {}
    of_donor = matching.rows_from(donor) if donor != matching.source else {}
    if name != GENERATION:
        told = config
        if donor != matching.source:
            told = with_lacking(with_ids(config, of_source, of_donor), of_source, SPECIAL_IDS)
        if chosen is None:
            return told
        ids = adjusted(name, dict.fromkeys(SPECIAL_IDS), sources.generation) or {}
        known = {key: value for key, value in ids.items() if value is not None}
        return _with_ids(told, with_ids(known, {}, matching.rows_from(chosen)))
    if chosen is not None:
        return with_ids(own_generation(sources.generation) or {}, {}, matching.rows_from(chosen))
    ordered = [matching.source, *(i for i in range(len(models)) if i != matching.source)]
    ends = [moved_ids(end, matching.rows_from(i)) for i in ordered for end in ends_of(models[i])]
    found = list(dict.fromkeys(end for end in ends if end is not None))
    if not config:
        return {**special_ids(of_source), EOS: found} if len(found) > 1 else None
    if donor != matching.source:
        of_generation = source.donor.generation or {}
        told = with_ids(config, {**of_source, **of_generation}, of_donor)
        config = with_lacking(told, of_generation, SPECIAL_IDS)
    return with_ends(config, found)


def _index(checkpoint: Checkpoint, models: Sequence[Checkpoint]) -> int:
    """The number of a model, or of the adapter whose base it is."""
    named = [i for i, model in enumerate(models) if model.name == checkpoint.name]
    return next(iter([*named, *(i for i, one in enumerate(models) if one.base and one.base.checkpoint is checkpoint)]))


def _with_ids(config: Mapping[str, Any], ids: Mapping[str, Any]) -> dict[str, Any]:
    changed = {key: ids.get(key, value) if key in SPECIAL_IDS else value for key, value in config.items()}
    if isinstance(inner := config.get("text_config"), Mapping):
        changed["text_config"] = _with_ids(inner, ids)
    return changed
