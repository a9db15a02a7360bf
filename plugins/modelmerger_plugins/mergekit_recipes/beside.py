"""What a recipe says of dtype, tokenizer and chat template."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelmerger import Problem, shown

from modelmerger_plugins.mergekit_recipes.chat_templates import TEMPLATES
from modelmerger_plugins.mergekit_recipes.references import Reference, WrongReferenceError, read_reference

DTYPES = ("float16", "bfloat16", "float32", "float64")
ALIASES = {
    **dict.fromkeys(("bf16", "bfloat"), "bfloat16"),
    **dict.fromkeys(("fp16", "f16", "half"), "float16"),
    **dict.fromkeys(("fp32", "f32", "float", "single"), "float32"),
    **dict.fromkeys(("fp64", "f64", "double"), "float64"),
}
"""Names that mergekit refuses, and what they mean."""


def written_dtype(given: Mapping[str, Any], file: str, problems: list[Problem], notes: list[Problem]) -> str | None:
    """The dtype that is written; None: each tensor as the donor has it."""
    found = {
        key: _dtype(given[key], f"{file}: {key}", problems, notes) for key in ("out_dtype", "dtype") if given.get(key)
    }
    return found.get("out_dtype") or found.get("dtype")


def _dtype(given: Any, where: str, problems: list[Problem], notes: list[Problem]) -> str | None:
    name = str(given).removeprefix("torch.")
    if name not in DTYPES:
        advice = f"Write {ALIASES[name]}" if name in ALIASES else f"Write one of {', '.join(DTYPES)}"
        problems.append(Problem(f"'{shown(str(given), 40)}' is no dtype that models are merged in. {advice}", where))
        return None
    if name != given:
        notes.append(Problem(f"is read as {name}, so that config.json says that too", where, severity="note"))
    return name


def tokenizer_options(
    given: Mapping[str, Any],
    models: Sequence[tuple[Reference, str | None]],
    donor: Reference,
    file: str,
    problems: list[Problem],
    notes: list[Problem],
) -> dict[str, Any]:
    """The options that say whose tokenizer the merged model has.

    models: those that can be named, with their names; None for a name that follows from the path. donor: whose
    tokenizer is taken without them.
    """
    if given.get("tokenizer_source") is not None and given.get("tokenizer") is not None:
        problems.append(Problem("has tokenizer_source and tokenizer. Give one of them", file))
        return {}
    where, source = _source(given, file, problems, notes)
    if source is None:
        return {}
    if source == "union":
        message = (
            "asks for the union of all vocabularies. Where they are equal, the donor's tokenizer is copied; others are "
            "not brought together yet, and check says which differ"
        )
        notes.append(Problem(message, where, severity="note"))
        return {"tokenizer_source": "base"}
    if source == "base":
        return {"tokenizer_source": "base"}
    try:
        wanted = read_reference(source)
    except WrongReferenceError as error:
        problems.append(Problem(str(error), where))
        return {}
    wanted = Reference(wanted.model)  # never the adapter's
    if wanted == Reference(donor.model):
        return {"tokenizer_source": "base"}
    for reference, name in models:
        if Reference(reference.model) == wanted:
            return {"tokenizer_source": name or reference.name}
    advice = "Name one of the models that are merged, base, or union"
    if isinstance(source, str) and source.lower() in ("union", "base"):
        advice = f"Write {source.lower()}"
    problems.append(Problem(f"'{shown(str(source), 60)}' is none of the models that are merged. {advice}", where))
    return {}


def _source(given: Mapping[str, Any], file: str, problems: list[Problem], notes: list[Problem]) -> tuple[str, Any]:
    """Where the source of the tokenizer stands, and what it is; None: nothing is said of it."""
    if given.get("tokenizer_source") is not None:
        return f"{file}: tokenizer_source", given["tokenizer_source"]
    tokenizer, where = given.get("tokenizer"), f"{file}: tokenizer"
    if tokenizer is None:
        return where, None
    if not isinstance(tokenizer, Mapping):
        problems.append(Problem(f"must be a mapping, got {shown(repr(tokenizer), 40)}. Write {{source: …}}", where))
        return where, None
    for key in tokenizer:
        if key in ("tokens", "pad_to_multiple_of") and tokenizer[key]:
            message = f"'{key}' is not available yet: rows of the vocabulary stay as they are. Leave it out"
            problems.append(Problem(message, where))
        elif key not in ("source", "tokens", "pad_to_multiple_of"):
            message = f"'{shown(str(key), 40)}' here is not read; mergekit ignored it. Leave it out"
            notes.append(Problem(message, where, severity="warning"))
    return where, tokenizer.get("source") if tokenizer.get("source") is not None else "union"


def chat_template(given: Mapping[str, Any], file: str, problems: list[Problem]) -> dict[str, Any]:
    """The option that gives the chat template as a text."""
    wanted, where = given.get("chat_template"), f"{file}: chat_template"
    if wanted is None:
        return {}
    if wanted == "auto":
        return {"chat_template_from": "commonest"}
    if isinstance(wanted, str) and wanted in TEMPLATES:
        return {"chat_template": TEMPLATES[wanted]}
    if isinstance(wanted, str) and len(wanted) >= 20 and "{" in wanted:
        return {"chat_template": wanted}
    names = ", ".join(("auto", *TEMPLATES))
    problems.append(Problem(f"must be one of {names}, or a template in Jinja, got {shown(repr(wanted), 40)}", where))
    return {}
