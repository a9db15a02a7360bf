"""How models begin, end and go about an answer: chat template, special tokens and generation settings, compared."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelmerger import Checkpoint, InputError, Problem, models_behind, shown

from modelmerger_plugins.chat_templates import CONFIG, templates_in, templates_of
from modelmerger_plugins.tokenizer.borrowed_template import with_template
from modelmerger_plugins.tokenizer.json_objects import object_in, own_generation
from modelmerger_plugins.tokenizer.options import Sources

if TYPE_CHECKING:
    from modelmerger_plugins.tokenizer.rows.matching import Matching

SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
UNTOLD = ("transformers_version", "_from_model_config", "_commit_hash")
"""Keys of generation_config.json that say nothing of how a model answers."""
MOST_NAMED = 4
TEMPLATE = "chat template"
FIRST_NAMED = (TEMPLATE, "eos_token", "eos_token_id")


def problems_with_speaking(
    checkpoints: Sequence[Checkpoint], sources: Sources, matching: "Matching | None" = None
) -> Iterator[Problem]:
    """One warning about all that other models say of a chat template, of special tokens and of generation, and that the
    merged model will not have; nothing of what an option decides.

    matching: how rows are matched. Ids then mean other tokens in other models, and a template may be borrowed.
    """
    found: dict[str, list[str]] = {}
    sources, borrowed = with_template(sources, matching)
    for checkpoint in models_behind(checkpoints):
        for what in _not_taken(checkpoint, sources):
            if (matching is not None and what in SPECIAL_IDS) or (borrowed and what == TEMPLATE):
                continue
            found.setdefault(what, []).append(checkpoint.name)
    if not found:
        return
    said: dict[tuple[str, ...], list[str]] = {}
    for what, models in found.items():
        said.setdefault(tuple(models), []).append(what)
    differing = "; ".join(
        f"{_some(sorted(whats, key=_rank))} of {_some(map(repr, models))}" for models, whats in said.items()
    )
    givers = dict.fromkeys(repr(one.name) for one in (sources.tokenizer, sources.generation))
    taken = f"{' and '.join(givers)} {'says' if len(givers) == 1 else 'say'}"
    of_files = any(what == TEMPLATE or what in SPECIAL_TOKENS for what in found)
    options = ["tokenizer_source (or chat_template_from)"] if of_files else []
    if any(what != TEMPLATE and what not in SPECIAL_TOKENS for what in found):
        options.append("generation_config_from")
    choices = " and ".join(options)
    message = f"{differing}: left behind, since what {taken} is taken. To choose, name a model in {choices}."
    yield Problem(message, "options", severity="warning")


def generation_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a model says of generation: special ids of its config, then generation_config.json, which goes before it."""
    found = {key: value for key, value in special_ids(checkpoint.donor.config or {}).items() if value is not None}
    generation = own_generation(checkpoint) or {}
    return found | {key: value for key, value in generation.items() if key not in UNTOLD and value is not None}


def special_ids(config: Mapping[str, Any]) -> dict[str, Any]:
    """The ids of special tokens in a config.json, or in the part of it that is about texts."""
    inner = config.get("text_config")
    levels = [inner, config] if isinstance(inner, Mapping) else [config]
    return {key: level[key] for level in levels for key in SPECIAL_IDS if key in level}


def special_tokens(directory: Path | None) -> dict[str, str]:
    """Name of a special token → the token, as a tokenizer's files have it."""
    if directory is None:
        return {}
    said = {**object_in(directory, "special_tokens_map.json"), **object_in(directory, CONFIG)}
    values = {key: said.get(key) for key in SPECIAL_TOKENS}
    plain = {key: value.get("content") if isinstance(value, Mapping) else value for key, value in values.items()}
    return {key: value for key, value in plain.items() if isinstance(value, str)}


def _not_taken(checkpoint: Checkpoint, sources: Sources) -> Iterator[str]:
    """What a model says that the merged model will not."""
    directory = checkpoint.donor.directory
    if not sources.decided & {"tokenizer_source", "chat_template_from", "chat_template"}:
        theirs = _templates(directory)
        if theirs and theirs != _templates(sources.template.donor.directory):
            yield TEMPLATE
    if "tokenizer_source" not in sources.decided:
        ours = special_tokens(sources.tokenizer.donor.directory)
        yield from _differing(special_tokens(directory), ours)
    if "generation_config_from" not in sources.decided:
        yield from _differing(generation_of(checkpoint), generation_of(sources.generation))


def _differing(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    return (key for key, value in theirs.items() if _plain(value) != _plain(ours.get(key)))


def _plain(value: Any) -> Any:
    """Ids in a list are a set, and one id is a list of one."""
    if isinstance(value, list) and all(isinstance(one, int) for one in value):
        return sorted(value)
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


def _templates(directory: Path | None) -> dict[str, str]:
    try:
        return templates_of(templates_in(directory))
    except InputError:
        return {}


def _rank(what: str) -> int:
    return FIRST_NAMED.index(what) if what in FIRST_NAMED else len(FIRST_NAMED)


def _some(names: Iterable[str]) -> str:
    every = [shown(name, 40) for name in names]
    more = f" and {len(every) - MOST_NAMED} more" if len(every) > MOST_NAMED else ""
    return ", ".join(every[:MOST_NAMED]) + more
