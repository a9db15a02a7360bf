"""What stands against the files that the options choose."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from modelmerger import Checkpoint, InputError, Problem, shown

from modelmerger_plugins.chat_templates import templates_in
from modelmerger_plugins.tokenizer.borrowed_template import with_template
from modelmerger_plugins.tokenizer.comparing import difference_of_files, difference_of_vocabularies
from modelmerger_plugins.tokenizer.json_objects import own_generation
from modelmerger_plugins.tokenizer.kinds import tokenizer_files
from modelmerger_plugins.tokenizer.options import Options, Sources
from modelmerger_plugins.tokenizer.planned import problems_with_files
from modelmerger_plugins.tokenizer.speaking import problems_with_speaking
from modelmerger_plugins.tokenizer.template_tokens import problems_with_template_tokens
from modelmerger_plugins.tokenizer.vocabularies import Vocabulary
from modelmerger_plugins.tokenizer.without_row import problems_with_rows

if TYPE_CHECKING:
    from modelmerger_plugins.tokenizer.rows.matching import Matching

MOST_NAMED = 3
"""Tokens that a warning names."""
_USELESS = "has no effect without a tokenizer: preserve_tokenizer is false."
_OF_ROWS = (
    "says which rows the merged model has, and no tokenizer that goes with them is copied: preserve_tokenizer is false."
)


def problems_with(
    checkpoints: Sequence[Checkpoint], sources: Sources, options: Options, matching: "Matching | None"
) -> Iterator[Problem]:
    """Errors for files that cannot be taken, and a warning about what other models say otherwise.

    matching: how the models' rows are matched; None where they are as the models have them.
    """
    yield from _with_tokenizer(sources, options, matching)
    yield from problems_with_files(sources, options)
    yield from _with_template(sources, options)
    if "generation_config_from" in sources.decided and own_generation(sources.generation) is None:
        message = "has no generation_config.json to take. Name another model in generation_config_from."
        yield Problem(message, sources.generation.place)
    if options.preserve_tokenizer:
        if matching is None:
            yield from problems_with_rows(sources)
        with_template_of, borrowed = with_template(sources, matching)
        yield from borrowed
        if matching is not None:
            yield from problems_with_template_tokens(with_template_of, options, matching)
        yield from problems_with_speaking(checkpoints, sources, matching)


def problems_with_sources(matching: "Matching | None", options: Options) -> Iterator[Problem]:
    """A warning about entries of `token_sources` that change nothing. matching: None where no row is another one."""
    if not options.token_sources:
        return
    from modelmerger_plugins.tokenizer.rows.recipes import idle_sources

    if idle := idle_sources(matching, options):
        named = ", ".join(shown(token, 30) for token in idle[:MOST_NAMED])
        more = f" and {len(idle) - MOST_NAMED} more" if len(idle) > MOST_NAMED else ""
        message = f"changes nothing for {named}{more}, which every model has. Add force: true, or leave it out."
        yield Problem(message, "options.token_sources", severity="warning")


def _with_tokenizer(sources: Sources, options: Options, matching: "Matching | None") -> Iterator[Problem]:
    source = sources.tokenizer
    if not options.preserve_tokenizer:
        if "tokenizer_source" in sources.decided:
            yield Problem(_USELESS if matching is None else _OF_ROWS, "options.tokenizer_source", severity="warning")
        return
    if not tokenizer_files(source.donor.directory):
        named = "tokenizer_source" in sources.decided and source is not sources.donor
        message = "has no tokenizer files, so the merged model gets none."
        yield Problem(message, source.place, severity="error" if named else "note")
    elif source is not sources.donor and (difference := _of_other_rows(sources, matching)):
        message = (
            f"{difference}, whose rows the merged model has, so its tokenizer cannot be taken. "
            "Leave tokenizer_source out, or name a model with the same vocabulary."
        )
        yield Problem(message, source.place)


def _of_other_rows(sources: Sources, matching: "Matching | None") -> str:
    """Why the tokenizer files that are taken do not go with the rows, in words; empty where they do."""
    source = sources.tokenizer
    if matching is None:
        return difference_of_vocabularies(sources.donor, source)
    named = matching.models[matching.source]
    if source.base is None or named.directory in (None, source.donor.directory) or source.donor.directory is None:
        return ""
    own = Vocabulary(named.file, named.tokens or {})  # of an adapter that has the rows of its base, and other files
    return difference_of_files(own, source.base.checkpoint.name, source.donor.directory)


def _with_template(sources: Sources, options: Options) -> Iterator[Problem]:
    if "chat_template_from" not in sources.decided or not options.preserve_tokenizer:
        return
    try:
        found = templates_in(sources.template.donor.directory)
    except InputError as error:
        yield from error.problems
        return
    if not found:
        message = "has no chat template to take. Name another model in chat_template_from."
        yield Problem(message, sources.template.place)


def in_config(options: Options) -> Iterator[Problem]:
    """What the config alone says against the chat template that it gives, which is parsed, and never rendered."""
    templates = {"chat_template_from": options.chat_template_from, "chat_template": options.chat_template}
    given = [f"options.{key}" for key, value in templates.items() if value is not None]
    if not options.preserve_tokenizer:
        yield from (Problem(_USELESS, place, severity="warning") for place in given)
    if len(given) > 1:
        yield Problem("is given beside chat_template_from. Give one of them.", given[-1])
    if options.chat_template is not None:
        yield from _in_template(options.chat_template)


def _in_template(text: str) -> Iterator[Problem]:
    from jinja2 import Environment, TemplateSyntaxError

    try:
        Environment(autoescape=True, extensions=["jinja2.ext.loopcontrols"]).parse(text)
    except TemplateSyntaxError as error:
        if "'generation'" not in str(error) and "'endgeneration'" not in str(error):  # a tag of transformers' own
            yield Problem(
                f"is no template in Jinja: line {error.lineno}: {error.message} Mend it.", "options.chat_template"
            )
