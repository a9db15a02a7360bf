"""config.json and generation_config.json of a merged model, as far as they depend on the vocabulary."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from modelmerger import Checkpoint

from modelmerger_plugins.tokenizer.rows.matrices import NO_TEXT, SIZE

EOS = "eos_token_id"
_IDS = re.compile(r"_token_ids?$|_token_index$")
_OF_CODES = re.compile(r"codebook|codec|depth|vq")
"""Ids in vocabularies of codes. Those of images and sounds (`image_token_id`) are tokens of texts."""
LISTS = ("suppress_tokens", "begin_suppress_tokens")
"""Keys of generation whose value is a list of ids."""
SEQUENCES = ("bad_words_ids", "force_words_ids")
"""Those whose value is a list of lists of ids."""
BY_NAME = ("lang_to_id", "task_to_id")
"""Those whose value has ids by name."""
BIASES = "sequence_bias"
"""The one whose value has pairs of a list of ids and a number."""
BY_PLACE = "forced_decoder_ids"
"""The one whose value has pairs of a place and an id."""


def with_vocabulary_size(config: Mapping[str, Any], rows: int, wanted: int) -> dict[str, Any]:
    """The config with another size of the vocabulary at every level that has the number of rows there was."""
    made = dict(config)
    for key, level in config.items():
        if NO_TEXT.search(key):
            continue
        if isinstance(level, Mapping):
            made[key] = with_vocabulary_size(level, rows, wanted)
        elif SIZE.search(key) and type(level) is int and level == rows:
            made[key] = wanted
    return made


def with_ids(config: Mapping[str, Any], source: Mapping[str, Any], rows: Mapping[int, int]) -> dict[str, Any]:
    """The config with the ids of special tokens that the source of the vocabulary has, at every level.

    rows: the row of the merged model for each row of the model whose config it is. An id that the source does not have
    is that token's there; it is left out where the vocabulary lacks the token.
    """
    said = dict(_ids(source))
    made: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and not NO_TEXT.search(key) and key not in BY_NAME:
            made[key] = with_ids(value, source, rows)
        elif _is_of_ids(key) and key in said:
            made[key] = said[key]
        elif not _is_of_ids(key) or value is None:
            made[key] = _with_moved(key, value, rows)
        elif (moved := moved_ids(value, rows)) not in (None, []):
            made[key] = moved
    return made


def with_lacking(config: Mapping[str, Any], source: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    """The config with those of the keys that the source says, and that it does not have at any level."""
    inner = config.get("text_config")
    levels = [config, inner] if isinstance(inner, Mapping) else [config]
    said = dict(_ids(source))
    lacking = {key: said[key] for key in keys if key in said and not any(key in level for level in levels)}
    if isinstance(inner, Mapping) and not any(map(_is_of_ids, config)):
        return {**config, "text_config": {**inner, **lacking}}
    return {**config, **lacking}


def moved_ids(value: Any, rows: Mapping[int, int]) -> Any:
    """An id, or a list of ids, in the merged vocabulary; None for one that it lacks. Negative ids stay as they are."""
    if isinstance(value, list):
        found = [moved_ids(one, rows) for one in value]
        return [one for one in found if one is not None]
    if type(value) is not int or value < 0:
        return value
    return rows.get(value)


def _with_moved(key: str, value: Any, rows: Mapping[int, int]) -> Any:
    """What else holds ids, in the merged vocabulary; without those of which it lacks a token."""
    if key in LISTS and isinstance(value, list):
        return moved_ids(value, rows)
    if key in BY_NAME and isinstance(value, Mapping):
        moved = {name: moved_ids(one, rows) for name, one in value.items()}
        return {name: one for name, one in moved.items() if one is not None}
    if not isinstance(value, list) or not all(isinstance(one, list) for one in value):
        return value
    if key in SEQUENCES:
        return [made for one in value if len(made := moved_ids(one, rows)) == len(one)]
    if key == BIASES and all(len(one) == 2 and isinstance(one[0], list) for one in value):
        return [[made, bias] for ids, bias in value if len(made := moved_ids(ids, rows)) == len(ids)]
    if key == BY_PLACE and all(len(one) == 2 for one in value):
        return [[place, made] for place, one in value if (made := moved_ids(one, rows)) is not None]
    return value


def ends_of(checkpoint: Checkpoint) -> list[int]:
    """The ids of tokens that end an answer: those of generation_config.json, else those of config.json."""
    generation, config = checkpoint.donor.generation or {}, checkpoint.donor.config or {}
    value = generation.get(EOS)
    if value is None:
        value = dict(_ids(config)).get(EOS)
    values = value if isinstance(value, list) else [value]
    return [one for one in values if type(one) is int and one >= 0]


def with_ends(generation: Mapping[str, Any], ends: list[int]) -> dict[str, Any]:
    """generation_config.json with the tokens that end an answer; as it is where it lists these already."""
    given = generation.get(EOS)
    listed = given if isinstance(given, list) else [given]
    if not ends or (len(listed) == len(ends) and set(map(str, listed)) == set(map(str, ends))):
        return dict(generation)
    return {**generation, EOS: ends if len(ends) > 1 else ends[0]}


def _ids(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The ids of special tokens that a config says, those at the top last, for these count."""
    for key, level in config.items():
        if isinstance(level, Mapping) and not NO_TEXT.search(key):
            yield from _ids(level)
    yield from ((key, value) for key, value in config.items() if _is_of_ids(key) and value is not None)


def _is_of_ids(key: str) -> bool:
    return _IDS.search(key) is not None and not _OF_CODES.search(key)
