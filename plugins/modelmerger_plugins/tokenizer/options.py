"""The options about files beside the weights, and the models that they name."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from attrs import field, frozen, validators
from modelmerger import (
    Check,
    Checkpoint,
    ConfigError,
    InputError,
    Problem,
    Settings,
    must_be_between,
    must_be_one_of,
    must_not_be_empty,
    shown,
)

from modelmerger_plugins.chat_templates import templates_in, templates_of
from modelmerger_plugins.tokenizer.json_objects import own_generation
from modelmerger_plugins.tokenizer.kinds import tokenizer_files

SOURCE, UNION, COMMONEST = "tokenizer_source", "union", "commonest"
MISSING = ("owners", "base", "mean_subtokens", "zero")
MOST_ROWS = 1 << 20
KEYS = ("model", "token", "zero", "force")


def _sources_problem(given: dict[str, dict[str, str | int | bool]]) -> str | None:
    for token, entry in given.items():
        if unknown := [key for key in entry if key not in KEYS]:
            return f"{token!r} has the unknown key {unknown[0]!r}. Known are {', '.join(KEYS)}"
        kinds = {"model": (str,), "token": (str, int), "zero": (bool,), "force": (bool,)}
        for key, value in entry.items():
            if type(value) not in kinds[key]:
                named = "true or false" if key in ("zero", "force") else "a text"
                return f"the key {key!r} of {token!r} must be {named}, got {value!r}"
        if (entry.get("zero") is True) == bool({"model", "token"} & entry.keys()):
            return f"{token!r} must say either zero: true, or a model, or a token, or both of these"
        if "model" not in entry and type(entry.get("token")) is int:
            return f"the key 'token' of {token!r} is a number, which only means something with 'model'"
    return None


@frozen(kw_only=True)
class Options:
    """Options about the files beside the weights."""

    preserve_tokenizer: bool = True
    """Whether tokenizer, chat template and processor files are copied."""
    tokenizer_source: str = field(default="base", validator=must_not_be_empty)
    """Whose vocabulary and tokenizer files the merged model has: base (the base model, or the first without one),
    first, the name of a model, or union (that of the base, with what the others add). Rows are matched by token."""
    chat_template_from: str | None = field(default=None, validator=validators.optional(must_not_be_empty))
    """The name of the model whose chat template the merged model has, or commonest: the template that most models have,
    the first of those that as many have; without it, that of tokenizer_source."""
    chat_template: str | None = field(default=None, validator=validators.optional(must_not_be_empty))
    """The chat template that the merged model has, as a text in Jinja; without it, that of a model."""
    generation_config_from: str | None = field(default=None, validator=validators.optional(must_not_be_empty))
    """The name of the model whose generation_config.json, and whose ids of special tokens in config.json, the merged
    model has; without it, the donor."""
    missing_tokens: str = field(default="owners", validator=must_be_one_of(*MISSING))
    """The rows of tokens that a model lacks; owners: the mean of the rows of all models that have the token, or for
    strategies with a base model that model's row if it has one; base: the base model's row, or as owners;
    mean_subtokens: the mean of the model's own rows for the pieces of the token; zero: zeros."""
    pad_to_multiple_of: int | None = field(default=None, validator=validators.optional(must_be_between(1, MOST_ROWS)))
    """What the number of rows of embeddings and heads is a multiple of: that of the tokens, rounded up. Without it, as
    many rows as the model of tokenizer_source has, if they are enough for all tokens."""
    token_sources: dict[str, dict[str, str | int | bool]] | None = field(
        default=None, validator=validators.optional(Check({}, _sources_problem))
    )
    """Where the rows of single tokens come from, by token: model (a name), token (another one, or its id), or zero:
    true; with force: true also in models that have the token."""


@frozen(eq=False, repr=False)
class Sources:
    """The models that files beside the weights are taken from."""

    donor: Checkpoint
    """Whose config is taken, and whatever no option is about."""
    tokenizer: Checkpoint
    """Whose tokenizer files are taken."""
    template: Checkpoint
    """Whose chat template is taken."""
    generation: Checkpoint
    """Whose generation settings are taken."""
    decided: frozenset[str]
    """The options that the config gives."""


def sources_of(checkpoints: Sequence[Checkpoint], settings: Settings, options: Options) -> Sources:
    """The models that the options name. Raises `ConfigError` for a name that no model has."""
    donor = checkpoints[settings.donor]
    named = {
        key: _named(name, key, checkpoints, donor) for key, name in _given_names(checkpoints, settings, options).items()
    }
    chosen = {key: _with_files(model, _HELD[key]) for key, model in named.items()}
    decided = {*chosen, *(["chat_template"] if options.chat_template is not None else [])}
    tokenizer = chosen.get(SOURCE, donor)
    template = chosen.get("chat_template_from", tokenizer)
    return Sources(donor, tokenizer, template, chosen.get("generation_config_from", donor), frozenset(decided))


_HELD: Mapping[str, Callable[[Checkpoint], object]] = MappingProxyType(
    {
        "tokenizer_source": lambda model: tokenizer_files(model.donor.directory),
        "chat_template_from": lambda model: templates_in(model.donor.directory),
        "generation_config_from": own_generation,
    }
)
"""What a model has that an option names it for; nothing where it has none."""


def _with_files(model: Checkpoint, held: Callable[[Checkpoint], object]) -> Checkpoint:
    """The model, or the base of an adapter that goes by what its base has."""
    try:
        return model.base.checkpoint if model.base is not None and not held(model) else model
    except InputError:  # it is said where it is taken
        return model


def tokenizer_source(checkpoints: Sequence[Checkpoint], settings: Settings, options: Options) -> Checkpoint:
    """The model whose vocabulary the merged model has, or has with more tokens. Raises as `sources_of` does."""
    donor = checkpoints[settings.donor]
    name = _given_names(checkpoints, settings, options).get(SOURCE)
    return donor if name is None else _named(name, SOURCE, checkpoints, donor)


def _given_names(checkpoints: Sequence[Checkpoint], settings: Settings, options: Options) -> dict[str, str]:
    given = settings.given.get("options") or {}
    names = {
        key: str(value)
        for key in (SOURCE, "chat_template_from", "generation_config_from")
        if key in given and (value := getattr(options, key)) is not None
    }
    if names.get("chat_template_from") != COMMONEST or any(model.name == COMMONEST for model in checkpoints):
        return names
    found = _commonest(checkpoints[: len(settings.models)])
    return {key: name for key, name in names.items() if key != "chat_template_from"} | found


def _commonest(models: Sequence[Checkpoint]) -> dict[str, str]:
    """The option that names the first model with the template that most of them have; none where none has one."""
    held = [_with_files(model, _HELD["chat_template_from"]).donor.directory for model in models]
    texts = [repr(sorted(templates_of(templates_in(directory)).items())) for directory in held]
    counts = Counter(text for text in texts if text != "[]")
    return {"chat_template_from": models[texts.index(counts.most_common(1)[0][0])].name} if counts else {}


def _named(name: str, key: str, checkpoints: Sequence[Checkpoint], donor: Checkpoint) -> Checkpoint:
    for checkpoint in checkpoints:
        if checkpoint.name == name:
            return checkpoint
    if name in ("base", "first") or (name == UNION and key == SOURCE):
        return checkpoints[0] if name == "first" else donor
    models = ", ".join(shown(checkpoint.name) for checkpoint in checkpoints)
    raise ConfigError(Problem(f"no model is called {shown(name)!r}. Name one of: {models}.", f"options.{key}"))
