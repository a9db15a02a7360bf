"""What a recipe says of the vocabulary: whose it is, and where the rows of single tokens come from."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from modelmerger import Problem, shown

from modelmerger_plugins.mergekit_recipes.references import Reference, WrongReferenceError, read_reference

KEYS = ("source", "tokens", "pad_to_multiple_of")
KINDS = ("zero", "model_token")
BASE, UNION = "base", "union"


@frozen
class _Reading:
    """Where problems of a part go, and the models that it can name."""

    models: Sequence[tuple[Reference, str | None]]
    """With their names; None for a name that follows from the path."""
    problems: list[Problem]
    """What is wrong."""
    notes: list[Problem]
    """What is to be said."""

    def name_of(self, value: Any, where: str, others: str = "") -> str | None:
        """The name of the model that a value means; None where it means none, which is a problem."""
        try:
            wanted = Reference(read_reference(value).model)  # never the adapter's
        except WrongReferenceError as error:
            self.problems.append(Problem(str(error), where))
            return None
        for reference, name in self.models:
            if Reference(reference.model) == wanted:
                return name or reference.name
        advice = f"Name one of the models that are merged{others}"
        if others and isinstance(value, str) and value.lower() in (UNION, BASE):
            advice = f"Write {value.lower()}"
        message = f"'{shown(str(value), 60)}' is none of the models that are merged. {advice}"
        self.problems.append(Problem(message, where))
        return None


def tokenizer_options(
    given: Mapping[str, Any],
    models: Sequence[tuple[Reference, str | None]],
    donor: Reference,
    file: str,
    problems: list[Problem],
    notes: list[Problem],
) -> dict[str, Any]:
    """The options that say whose tokenizer the merged model has, and where rows come from.

    models: those that can be named, with their names; None for a name that follows from the path. donor: whose
    tokenizer is taken without them.
    """
    if given.get("tokenizer_source") is not None and given.get("tokenizer") is not None:
        problems.append(Problem("has tokenizer_source and tokenizer. Give one of them", file))
        return {}
    reading = _Reading(models, problems, notes)
    where, source = _source(given, file, reading)
    if source is None:
        return {}
    tokenizer = given.get("tokenizer")
    entries = tokenizer.get("tokens") if isinstance(tokenizer, Mapping) else None
    options: dict[str, Any] = {"missing_tokens": BASE}
    if named := _named(source, donor, where, reading):
        options["tokenizer_source"] = named
    if isinstance(tokenizer, Mapping) and tokenizer.get("pad_to_multiple_of") is not None:
        options |= _multiple(tokenizer["pad_to_multiple_of"], where, reading)
    return options | _tokens(entries, f"{where}.tokens", reading)


def _multiple(given: Any, where: str, reading: _Reading) -> dict[str, Any]:
    if type(given) is not int or given < 1:
        message = f"pad_to_multiple_of must be a whole number from 1 on, got {shown(repr(given), 40)}"
        reading.problems.append(Problem(message, where))
        return {}
    return {"pad_to_multiple_of": given}


def _named(source: Any, donor: Reference, where: str, reading: _Reading) -> str | None:
    if source == UNION:
        message = (
            "joins vocabularies that differ script by script, so that texts are cut into what is added; mergekit "
            "appends tokens that no text is cut into"
        )
        reading.notes.append(Problem(message, where, severity="note"))
    if source in (UNION, BASE):
        return str(source)
    try:
        if Reference(read_reference(source).model) == Reference(donor.model):
            return BASE
    except WrongReferenceError:
        pass
    return reading.name_of(source, where, ", base, or union")


def _source(given: Mapping[str, Any], file: str, reading: _Reading) -> tuple[str, Any]:
    """Where the source of the tokenizer stands, and what it is; None: nothing is said of it."""
    if given.get("tokenizer_source") is not None:
        return f"{file}: tokenizer_source", given["tokenizer_source"]
    tokenizer, where = given.get("tokenizer"), f"{file}: tokenizer"
    if tokenizer is None:
        return where, None
    if not isinstance(tokenizer, Mapping):
        message = f"must be a mapping, got {shown(repr(tokenizer), 40)}. Write {{source: …}}"
        reading.problems.append(Problem(message, where))
        return where, None
    for key in (key for key in tokenizer if key not in KEYS):
        message = f"'{shown(str(key), 40)}' here is not read; mergekit ignored it. Leave it out"
        reading.notes.append(Problem(message, where, severity="warning"))
    return where, tokenizer.get("source") if tokenizer.get("source") is not None else UNION


def _tokens(given: Any, where: str, reading: _Reading) -> dict[str, Any]:
    """The option `token_sources`."""
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(entry, Mapping) for entry in given.values()):
        reading.problems.append(Problem("must be a mapping from tokens to {source: …, force: …}", where))
        return {}
    found = {str(token): _entry(entry, f"{where}.{shown(str(token), 40)}", reading) for token, entry in given.items()}
    sound = {token: entry for token, entry in found.items() if entry is not None}
    return {"token_sources": sound} if sound else {}


def _entry(entry: Mapping[str, Any], where: str, reading: _Reading) -> dict[str, Any] | None:
    source, force = entry.get("source"), entry.get("force", False)
    if type(force) is not bool:
        reading.problems.append(Problem(f"force must be true or false, got {shown(repr(force), 40)}", where))
        return None
    forced = {"force": True} if force else {}
    if isinstance(source, Mapping) and source.get("kind") == "zero":
        return {"zero": True, **forced}
    if isinstance(source, Mapping) and source.get("kind") == "model_token":
        token = source.get("token", source.get("token_id"))
        name = reading.name_of(source.get("model"), where)
        if type(token) not in (str, int):
            reading.problems.append(Problem("must have a 'token', or a 'token_id'", where))
            return None
        return None if name is None else {"model": name, "token": token, **forced}
    if source is None or (isinstance(source, Mapping) and "kind" in source):
        message = f"must have a source: a model, or a mapping of kind {' or '.join(KINDS)}"
        reading.problems.append(Problem(message, where))
        return None
    name = reading.name_of(source, where)
    return None if name is None else {"model": name, **forced}
